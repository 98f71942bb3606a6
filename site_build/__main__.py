"""`python -m site_build render` before a build of the site, `finish` after it."""

import sys


def main(arguments: list[str]) -> None:
    """Do one of the two steps."""
    if arguments == ["render"]:
        from site_build import lab, pages

        lab.prepare()  # first: the pages say whether it is there
        pages.render()
    elif arguments == ["finish"]:
        from site_build import hosting, lazily, machines

        machines.finish()
        lazily.finish()
        hosting.offer_wheel()
        hosting.lead_back()
    else:
        raise SystemExit("usage: python -m site_build render|finish")


if __name__ == "__main__":
    main(sys.argv[1:])
