"""Pictures of the demo for the README, and how readable its pages are."""

import base64
from pathlib import Path

# Both pages side by side, each in a window with its address.
SIDE_BY_SIDE = """<!doctype html>
<meta charset="utf-8">
<style>
  body {{ margin: 0; padding: 28px; display: flex; gap: 28px; width: max-content;
          background: {backdrop}; font: 500 15px/1 system-ui, sans-serif; }}
  figure {{ margin: 0; overflow: hidden; border: 1px solid {line}; border-radius: 12px;
            box-shadow: 0 1px 3px rgb(0 0 0 / 12%), 0 16px 40px -16px rgb(0 0 0 / 35%); }}
  figcaption {{ padding: 13px 18px; border-bottom: 1px solid {line};
                background: {bar}; color: {ink}; }}
  img {{ display: block; width: {width}px; }}
</style>
{figures}
"""
FIGURE = """
<figure><figcaption>{address}</figcaption><img src="data:image/png;base64,{image}"></figure>
"""
COLOURS = {
    "light": {"backdrop": "#e6e4de", "bar": "#ffffff", "ink": "#5d6068", "line": "#d5d2ca"},
    "dark": {"backdrop": "#08090a", "bar": "#1b1d20", "ink": "#a2a6ae", "line": "#2e3136"},
}
# Narrow windows: the README shows the picture at half its width, and it is to be read there.
WIDTH, HEIGHT = 580, 910

# The text of the page with the lowest contrast to what is behind it, by WCAG's formula.
WORST_CONTRAST = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => channels(colour).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const opaque = colour => (channels(colour)[3] ?? 1) === 1;
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (opaque(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  let worst = { ratio: 21, text: '' };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
    if (!text || !element.checkVisibility()) continue;
    const shades = [getComputedStyle(element).color, behind(element)].map(luminance);
    const ratio = (Math.max(...shades) + 0.05) / (Math.min(...shades) + 0.05);
    if (ratio < worst.ratio) worst = { ratio: Math.round(ratio * 100) / 100, text };
  }
  return { tooLow: worst.ratio < 4.5 ? worst : null, background: behind(document.body) };
}"""

# How wide the page is with whatever sticks out, and the names of fields without a label.
WIDTH_AND_UNLABELLED = """() => [
  document.documentElement.scrollWidth,
  [...document.querySelectorAll('input:not([type=hidden])')]
    .filter(field => !field.labels.length).map(field => field.name),
]"""


def take(visitor, django, rust, folder):
    """Saves demo-light.png and demo-dark.png: what `visitor` sees in both carts, side by side."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    browser = visitor.context.browser
    for scheme, colours in COLOURS.items():
        # Twice the pixels, for sharp text on any screen.
        context = browser.new_context(
            storage_state=visitor.context.storage_state(),
            color_scheme=scheme,
            viewport={"width": WIDTH, "height": HEIGHT},
            device_scale_factor=2,
        )
        page = context.new_page()
        figures = ""
        for address, port in ((django, 8000), (rust, 8001)):
            page.goto(f"{address}/cart/")
            image = base64.b64encode(page.screenshot()).decode()
            figures += FIGURE.format(address=f"http://127.0.0.1:{port}/cart/", image=image)
        # On a page of its own: the service's Content-Security-Policy forbids such images.
        page = context.new_page()
        page.set_content(SIDE_BY_SIDE.format(figures=figures, width=WIDTH, **colours))
        page.locator("body").screenshot(path=folder / f"demo-{scheme}.png", scale="device")
        context.close()
