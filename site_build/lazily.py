"""What a page loads only when it is asked for: the search index.

The theme's script asks for the index as it starts, on every page. A script of ours, which holds
that request back, has to come before it; the settings can only add scripts after it.
"""

import re

from tests.kit.site import SITE, pages

_BUNDLE = re.compile(r'<script src="([^"]*)assets/javascripts/bundle\.')


def finish() -> None:
    """Put the script before the theme's on every page of the built site."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        changed, count = _BUNDLE.subn(r'<script src="\1assets/later.js"></script>\g<0>', text)
        if count != 1:
            name = page.relative_to(SITE)
            raise ValueError(f"{name} loads the theme's script {count} times: adapt this to it")
        page.write_text(changed, encoding="utf-8")
