"""Pages of text, tables, forms, letters and articles."""

from __future__ import annotations

import numpy as np

from model.offline.changes import Pixels
from model.offline.negatives.drawing import Canvas, make_words, pick_colour, pick_ink, pick_paper

Size = tuple[int, int]  # width, height


def draw_text_page(generator: np.random.Generator, size: Size) -> Pixels:
    """Paragraphs under a heading."""
    canvas, ink = Canvas(generator, pick_paper(generator)), pick_ink(generator)
    margin, font = canvas.pick(15, 70), canvas.pick(9, 22)
    canvas.write((margin, margin), make_words(generator, 18), font * 2, ink)
    top = margin + font * 3
    while top < canvas.height - margin:
        top = canvas.write_paragraph(margin, top, canvas.width - margin, canvas.pick(2, 9), font, ink) + font
    return canvas.fit(size)


def draw_table(generator: np.random.Generator, size: Size) -> Pixels:
    """Rows and columns of numbers, with lines or shaded rows."""
    canvas, ink = Canvas(generator, pick_paper(generator)), pick_ink(generator)
    columns, step, font = canvas.pick(3, 9), canvas.pick(18, 44), canvas.pick(9, 17)
    shaded, shade = generator.random() < 0.5, pick_colour(generator, 190, 245)
    for row, top in enumerate(range(canvas.pick(5, 60), canvas.height - step, step)):
        if row == 0 or (shaded and row % 2):
            canvas.draw.rectangle((10, top, canvas.width - 10, top + step), fill=shade)
        elif not shaded:
            canvas.draw.line((10, top, canvas.width - 10, top), fill=ink)
        for column in range(columns):
            left = 14 + column * (canvas.width - 20) // columns
            text = make_words(generator, 7) if row == 0 or column == 0 else f"{generator.normal(0, 500):.2f}"
            canvas.write((left, top + 4), text, font, ink)
    return canvas.fit(size)


def draw_form(generator: np.random.Generator, size: Size) -> Pixels:
    """Labels with empty or filled boxes."""
    canvas, ink = Canvas(generator, pick_paper(generator)), pick_ink(generator)
    font, step = canvas.pick(10, 18), canvas.pick(34, 66)
    middle = canvas.width * canvas.pick(25, 50) // 100
    for top in range(canvas.pick(10, 60), canvas.height - step, step):
        canvas.write((15, top + 5), make_words(generator, 12), font, ink)
        canvas.draw.rectangle((middle, top, canvas.width - 15, top + step - 10), outline=ink, width=canvas.pick(1, 4))
        if generator.random() < 0.5:
            canvas.write((middle + 6, top + 5), make_words(generator, canvas.pick(4, 18)), font, pick_ink(generator))
    return canvas.fit(size)


def draw_letter(generator: np.random.Generator, size: Size) -> Pixels:
    """A letterhead, an address, a few paragraphs and a signature."""
    canvas, ink = Canvas(generator, pick_paper(generator)), pick_ink(generator)
    margin, font = canvas.pick(30, 80), canvas.pick(10, 16)
    canvas.draw.rectangle((0, 0, canvas.width, canvas.pick(20, 60)), fill=pick_colour(generator))
    top = canvas.write_paragraph(margin, margin + 40, margin + 160, 4, font, ink) + 2 * font
    for _ in range(canvas.pick(2, 4)):
        top = canvas.write_paragraph(margin, top, canvas.width - margin, canvas.pick(3, 7), font, ink) + font
    start = np.array([margin, min(top + 30, canvas.height - 20)])
    steps = start + np.cumsum(generator.normal([4, 0], 9, (30, 2)), axis=0)
    canvas.draw.line([(float(x), float(y)) for x, y in steps], fill=(20, 20, 120), width=2)
    return canvas.fit(size)


def draw_article(generator: np.random.Generator, size: Size) -> Pixels:
    """Two columns of small text around a framed diagram."""
    canvas, ink = Canvas(generator, pick_paper(generator)), pick_ink(generator)
    font, gap = canvas.pick(8, 13), canvas.pick(12, 30)
    half = (canvas.width - 3 * gap) // 2
    for column in range(2):
        left, top = gap + column * (half + gap), gap
        if column == canvas.pick(0, 2):
            canvas.draw.rectangle((left, top, left + half, top + half), outline=ink)
            for _ in range(6):
                x, y = left + canvas.pick(0, half), top + canvas.pick(0, half)
                canvas.draw.ellipse((x - 15, y - 10, x + 15, y + 10), outline=pick_colour(generator, 0, 160), width=2)
            top += half + gap
        while top < canvas.height - gap:
            top = canvas.write_paragraph(left, top, left + half, canvas.pick(3, 12), font, ink) + font
    return canvas.fit(size)
