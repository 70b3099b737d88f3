"""Makes every picture a link to itself, so that it can be enlarged on a small screen."""

import re

_PICTURE = re.compile(r'<img [^>]*src="([^"]+)"[^>]*>')


def on_page_content(html: str, **_) -> str:
    return _PICTURE.sub(r'<a class="picture" href="\1">\g<0></a>', html)
