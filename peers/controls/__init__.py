"""For each check a control that must fail it: what cannot fail shows nothing."""
