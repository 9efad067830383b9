"""Screens: windows, editors, terminals, charts, spreadsheets and web pages."""

from __future__ import annotations

import numpy as np

from model.offline.changes import Pixels
from model.offline.negatives.drawing import Canvas, Colour, make_words, pick_colour, pick_ink

Size = tuple[int, int]  # width, height


def draw_window(generator: np.random.Generator, size: Size) -> Pixels:
    """A title bar, a side bar with entries and a list."""
    dark = generator.random() < 0.5
    canvas = Canvas(generator, (34, 36, 40) if dark else (246, 246, 248))
    ink = (220, 220, 225) if dark else pick_ink(generator)
    side, font = canvas.width * canvas.pick(18, 34) // 100, canvas.pick(10, 16)
    canvas.draw.rectangle((0, 0, side, canvas.height), fill=(48, 50, 58) if dark else (228, 230, 236))
    canvas.draw.rectangle((0, 0, canvas.width, 30), fill=pick_colour(generator))
    for index, colour in enumerate(((255, 95, 86), (255, 189, 46), (39, 201, 63))):
        canvas.draw.ellipse((10 + 18 * index, 10, 21 + 18 * index, 21), fill=colour)
    for top in range(45, canvas.height - 20, canvas.pick(22, 40)):
        canvas.write((10, top), make_words(generator, 10), font, ink)
        canvas.draw.ellipse((side + 15, top, side + 31, top + 16), fill=pick_colour(generator))
        canvas.write((side + 40, top), make_words(generator, canvas.pick(12, 50)), font, ink)
    return canvas.fit(size)


def draw_code(generator: np.random.Generator, size: Size) -> Pixels:
    """Indented lines of coloured words with line numbers."""
    dark = generator.random() < 0.7
    canvas = Canvas(generator, (30, 30, 36) if dark else (253, 253, 250))
    colours = [pick_colour(generator, 130, 256) if dark else pick_colour(generator, 0, 150) for _ in range(5)]
    font = canvas.pick(10, 18)
    indent = 0
    for number, top in enumerate(range(8, canvas.height, font + font // 2)):
        canvas.write((6, top), str(number + 1), font, (120, 120, 120))
        indent = int(np.clip(indent + canvas.pick(-1, 2), 0, 5))
        left = 45 + indent * 2 * font
        for _ in range(canvas.pick(0, 7)):
            word = make_words(generator, canvas.pick(2, 9))
            canvas.write((left, top), word, font, colours[canvas.pick(0, 5)])
            left += int(len(word) * 0.55 * font) + font
    return canvas.fit(size)


def draw_terminal(generator: np.random.Generator, size: Size) -> Pixels:
    """Light lines of differing lengths on a dark ground."""
    canvas = Canvas(generator, pick_colour(generator, 0, 30))
    inks: tuple[Colour, ...] = ((90, 230, 90), (230, 230, 230), (240, 190, 70))
    ink, font = inks[canvas.pick(0, 3)], canvas.pick(11, 19)
    for top in range(6, canvas.height * canvas.pick(40, 101) // 100, font + 4):
        canvas.write((6, top), f"$ {make_words(generator, canvas.pick(2, 60))}", font, ink)
    return canvas.fit(size)


def draw_chart(generator: np.random.Generator, size: Size) -> Pixels:
    """Bars or lines over a grid, with axes."""
    canvas, ink = Canvas(generator, pick_colour(generator, 235, 256)), pick_ink(generator)
    left, bottom, count = 50, canvas.height - 40, canvas.pick(4, 16)
    for top in range(20, bottom, canvas.pick(25, 60)):
        canvas.draw.line((left, top, canvas.width - 15, top), fill=(205, 205, 205))
        canvas.write((8, top - 6), str(canvas.pick(0, 999)), 12, ink)
    step = (canvas.width - left - 20) / count
    heights = generator.integers(20, bottom - 10, (2, count))
    if generator.random() < 0.5:
        colour = pick_colour(generator)
        for index, top in enumerate(heights[0]):
            canvas.draw.rectangle(
                (left + index * step + 3, int(top), left + (index + 1) * step - 3, bottom), fill=colour
            )
    else:
        for series in heights:
            points = [(left + index * step, int(top)) for index, top in enumerate(series)]
            canvas.draw.line(points, fill=pick_colour(generator), width=canvas.pick(2, 5))
    canvas.draw.line((left, 10, left, bottom, canvas.width - 10, bottom), fill=ink, width=2)
    return canvas.fit(size)


def draw_spreadsheet(generator: np.random.Generator, size: Size) -> Pixels:
    """A grid of narrow cells with headings, some of them filled or selected."""
    canvas, ink = Canvas(generator, (255, 255, 255)), pick_ink(generator)
    width, height = canvas.pick(50, 100), canvas.pick(18, 28)
    for top in range(0, canvas.height, height):
        for left in range(0, canvas.width, width):
            is_heading = top == 0 or left == 0
            fill = (226, 228, 230) if is_heading else (255, 255, 255)
            if not is_heading and generator.random() < 0.04:
                fill = pick_colour(generator, 120, 256)
            canvas.draw.rectangle((left, top, left + width, top + height), fill=fill, outline=(200, 200, 200))
            if is_heading or generator.random() < 0.4:
                canvas.write((left + 4, top + 3), str(canvas.pick(0, 9999)), 12, ink)
    return canvas.fit(size)


def draw_web_page(generator: np.random.Generator, size: Size) -> Pixels:
    """A coloured header over cards, each with an empty picture and a text."""
    canvas, ink = Canvas(generator, pick_colour(generator, 238, 256)), pick_ink(generator)
    header = canvas.pick(50, 160)
    canvas.draw.rectangle((0, 0, canvas.width, header), fill=pick_colour(generator))
    canvas.write((20, header // 3), make_words(generator, 16), canvas.pick(20, 36), (255, 255, 255))
    columns = canvas.pick(2, 4)
    side = (canvas.width - 15 * (columns + 1)) // columns
    for top in range(header + 15, canvas.height, side + 15):
        for column in range(columns):
            left = 15 + column * (side + 15)
            box = (left, top, left + side, top + side)
            canvas.draw.rounded_rectangle(box, 8, fill=(255, 255, 255), outline=(210, 210, 215))
            canvas.draw.rectangle(
                (left + 1, top + 1, left + side - 1, top + side // 2), fill=pick_colour(generator, 60)
            )
            canvas.write_paragraph(left + 8, top + side // 2 + 8, left + side - 8, 3, 12, ink)
    return canvas.fit(size)
