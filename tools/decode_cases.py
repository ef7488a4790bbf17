#!/usr/bin/env python3
"""Makes tests/golden/decode_cases.safetensors: small JPEG and PNG files and the pixels that Pillow reads from them.

    python3 tools/decode_cases.py tests/golden/decode_cases.safetensors    the file the tests read
    python3 tools/decode_cases.py --files DIR --seed 7 --count 5000        other layouts as files, to compare by hand

Needs numpy, Pillow and safetensors. Pillow itself writes few layouts, so that JPEGs are coded here, from random coefficients: any
sampling factors, any split into scans, restart intervals, progressive scans with refinements, any colour model. A case whose pixels
are empty is to be refused: Pillow refuses its sampling factors, or its name begins with "refuse", for what docs/data.md says is refused.
"""

import argparse
import io
import os
import random
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps, __version__ as PILLOW, features

# Positions in a block of 8x8, in coding order: diagonals, every other one upwards.
ZIGZAG = sorted(range(64), key=lambda p: (p // 8 + p % 8, p // 8 if (p // 8 + p % 8) % 2 else p % 8))


class Bits:
    """Entropy-coded bytes: bits first to last, 0xff stuffed, ones up to a marker."""

    def __init__(self):
        self.text = []
        self.bytes = b""

    def put(self, value, count):
        if count:
            self.text.append(format(value & ((1 << count) - 1), f"0{count}b"))

    def flush(self):
        bits = "".join(self.text)
        bits += "1" * (-len(bits) % 8)
        raw = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
        self.bytes += raw.replace(b"\xff", b"\xff\0")
        self.text = []

    def restart(self, number):
        self.flush()
        self.bytes += bytes([0xFF, 0xD0 + number % 8])


class Table:
    """A Huffman table that codes `symbols`, the first shortest; two lengths, or one where there are few."""

    def __init__(self, symbols):
        self.symbols = list(symbols)
        few, many = self.symbols[:3], self.symbols[3:]
        lengths = {2: len(few)}
        size = 3
        while many and (1 << (size - 2)) - 1 < len(many):
            size += 1
        if many:
            lengths[size] = len(many)
        self.counts = bytes(lengths.get(length, 0) for length in range(1, 17))
        self.codes = {}
        code = position = 0
        for length in range(1, 17):
            for _ in range(lengths.get(length, 0)):
                self.codes[self.symbols[position]] = (code, length)
                code += 1
                position += 1
            code <<= 1

    def segment(self, kind, number):
        return segment(0xC4, bytes([kind << 4 | number]) + self.counts + bytes(self.symbols))


def segment(marker, payload):
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def magnitude(value):
    """The size of a value and the bits that follow the size's code."""
    size = abs(value).bit_length()
    return size, value if value >= 0 else value + (1 << size) - 1


class Jpeg:
    """Random coefficients of an image and the file that codes them."""

    def __init__(self, rng, width, height, sampling, detail=0.12):
        self.rng, self.width, self.height, self.sampling = rng, width, height, sampling
        self.wide = max(h for h, _ in sampling)
        self.high = max(v for _, v in sampling)
        self.mcus = (-(-width // (8 * self.wide)), -(-height // (8 * self.high)))
        self.blocks = []
        for h, v in sampling:
            rows = []
            for _ in range(self.mcus[1] * v):
                rows.append([self.random_block(detail) for _ in range(self.mcus[0] * h)])
            self.blocks.append(rows)

    def random_block(self, detail):
        """DC and few AC coefficients, in coding order, already divided by the quantiser."""
        block = [0] * 64
        block[0] = self.rng.randint(-110, 110)
        for k in range(1, 64):
            if self.rng.random() < detail / (1 + k / 16):
                block[k] = self.rng.choice([-1, 1]) * self.rng.choice([1, 1, 1, 2, 3, 5, 9, 14])
        return block

    def units(self, scan):
        """The blocks of a scan in order, grouped by what a restart interval counts."""
        if len(scan) == 1:
            c = scan[0]
            h, v = self.sampling[c]
            columns = -(-(-(-self.width * h // self.wide)) // 8)
            rows = -(-(-(-self.height * v // self.high)) // 8)
            return [[(c, self.blocks[c][y][x])] for y in range(rows) for x in range(columns)]
        groups = []
        for my in range(self.mcus[1]):
            for mx in range(self.mcus[0]):
                groups.append(
                    [
                        (c, self.blocks[c][my * self.sampling[c][1] + j][mx * self.sampling[c][0] + i])
                        for c in scan
                        for j in range(self.sampling[c][1])
                        for i in range(self.sampling[c][0])
                    ]
                )
        return groups

    def code_scan(self, scan, code_unit, finish_run, interval):
        """Tokens of a scan: ("code", table class, symbol), ("bits", value, count) or ("restart", number)."""
        tokens = []
        state = {"predictors": {c: 0 for c in scan}, "run": 0, "pending": []}
        for i, unit in enumerate(self.units(scan)):
            if interval and i and i % interval == 0:
                finish_run(tokens, state)
                tokens.append(("restart", i // interval - 1, 0))
                state["predictors"] = {c: 0 for c in scan}
            for c, block in unit:
                code_unit(tokens, state, c, block)
        finish_run(tokens, state)
        return tokens

    def sequential(self, scan, interval):
        def unit(tokens, state, c, block):
            dc(tokens, state, c, block[0])
            run = 0
            for k in range(1, 64):
                if block[k] == 0:
                    run += 1
                    continue
                while run > 15:
                    tokens.append(("code", 1, 0xF0))
                    run -= 16
                size, bits = magnitude(block[k])
                tokens += [("code", 1, run << 4 | size), ("bits", bits, size)]
                run = 0
            if run:
                tokens.append(("code", 1, 0))

        return self.code_scan(scan, unit, lambda tokens, state: None, interval)

    def dc_first(self, scan, low, interval):
        unit = lambda tokens, state, c, block: dc(tokens, state, c, block[0] >> low)
        return self.code_scan(scan, unit, lambda tokens, state: None, interval)

    def dc_refine(self, scan, low, interval):
        unit = lambda tokens, state, c, block: tokens.append(("bits", block[0] >> low & 1, 1))
        return self.code_scan(scan, unit, lambda tokens, state: None, interval)

    def ac_first(self, scan, first, last, low, interval):
        def unit(tokens, state, c, block):
            run = 0
            for k in range(first, last + 1):
                value = abs(block[k]) >> low
                if value == 0:
                    run += 1
                    continue
                end_run(tokens, state)
                while run > 15:
                    tokens.append(("code", 1, 0xF0))
                    run -= 16
                size, bits = magnitude(value if block[k] > 0 else -value)
                tokens += [("code", 1, run << 4 | size), ("bits", bits, size)]
                run = 0
            if run:
                state["run"] += 1
                if state["run"] == 0x7FFF:
                    end_run(tokens, state)

        return self.code_scan(scan, unit, end_run, interval)

    def ac_refine(self, scan, first, last, low, interval):
        def unit(tokens, state, c, block):
            values = [abs(value) >> low for value in block]
            last_new = max((k for k in range(first, last + 1) if values[k] == 1), default=-1)
            run, corrections = 0, []
            for k in range(first, last + 1):
                if values[k] == 0:
                    run += 1
                    continue
                while run > 15 and k <= last_new:
                    end_run(tokens, state)
                    tokens.append(("code", 1, 0xF0))
                    run -= 16
                    tokens += corrections
                    corrections = []
                if values[k] > 1:
                    corrections.append(("bits", values[k] & 1, 1))
                    continue
                end_run(tokens, state)
                tokens += [("code", 1, run << 4 | 1), ("bits", int(block[k] > 0), 1)]
                tokens += corrections
                run, corrections = 0, []
            if run or corrections:
                state["run"] += 1
                state["pending"] += corrections
                if state["run"] == 0x7FFF:
                    end_run(tokens, state)

        return self.code_scan(scan, unit, end_run, interval)


def dc(tokens, state, c, value):
    size, bits = magnitude(value - state["predictors"][c])
    state["predictors"][c] = value
    tokens += [("code", 0, size), ("bits", bits, size)]


def end_run(tokens, state):
    """Writes the run of blocks without further coefficients, then the corrections that were put off with it."""
    if state["run"]:
        size = state["run"].bit_length() - 1
        tokens += [("code", 1, size << 4), ("bits", state["run"] - (1 << size), size)]
    tokens += state["pending"]
    state["run"], state["pending"] = 0, []


def scan_bytes(scan, ids, tokens, spectrum, rng):
    """Huffman tables of a scan, its header and its data."""
    out = b""
    tables = {}
    number = rng.randrange(2)
    for kind in (0, 1):
        used = [symbol for name, table, symbol in tokens if name == "code" and table == kind]
        if used or spectrum == (0, 63, 0, 0):
            counts = {symbol: used.count(symbol) for symbol in used} or {0: 1}
            tables[kind] = Table(sorted(counts, key=lambda symbol: -counts[symbol]))
            out += tables[kind].segment(kind, number)
    first, last, high, low = spectrum
    out += segment(
        0xDA,
        bytes([len(scan)])
        + b"".join(bytes([ids[c], number << 4 | number]) for c in scan)
        + bytes([first, last, high << 4 | low]),
    )
    bits = Bits()
    for name, a, b in tokens:
        if name == "code":
            bits.put(*tables[a].codes[b])
        elif name == "bits":
            bits.put(a, b)
        else:
            bits.restart(a)
    bits.flush()
    return out + bits.bytes


def split(rng, components):
    """A random split of the components into scans; interleaved ones hold at most 10 blocks a unit."""
    left, scans = list(range(components)), []
    while left:
        count = rng.randint(1, len(left))
        scans.append(left[:count])
        left = left[count:]
    return scans


def fits(sampling, scan):
    return len(scan) == 1 or sum(sampling[c][0] * sampling[c][1] for c in scan) <= 10


def progressive_script(rng, sampling):
    """A random complete script: (scan, first, last, high, low)."""
    components = len(sampling)
    script = []
    low = rng.choice([0, 0, 1, 2])
    for scan in split(rng, components):
        script += [(part, 0, 0, 0, low) for part in ([scan] if fits(sampling, scan) else [[c] for c in scan])]
    later = [[([c], 0, 0, high, high - 1) for high in range(low, 0, -1)] for c in range(components)]
    for c in range(components):
        bands, first = [], 1
        while first < 64:
            last = rng.choice([first, min(63, first + 5), 63, 63])
            bands.append((first, last))
            first = last + 1
        for first, last in bands:
            low = rng.choice([0, 0, 1, 2])
            later.append([([c], first, last, 0, low)] + [([c], first, last, high, high - 1) for high in range(low, 0, -1)])
    # Scans of one band keep their order; bands mix. AC scans need the first DC scan, which all have had.
    while later := [band for band in later if band]:
        script.append(rng.choice(later).pop(0))
    return script


def jpeg_file(rng, width, height, sampling, progressive, head=b"", ids=None, interval=0, frame=None, scans=None, drop=0):
    """A file and a word on its layout. `frame` replaces the frame's marker, `drop` leaves out that many of the last scans."""
    jpeg = Jpeg(rng, width, height, sampling)
    ids = ids or [1, 2, 3, 4][: len(sampling)]
    out = b"\xff\xd8" + head
    quantiser = rng.choice([3, 8])
    out += segment(0xDB, bytes([0]) + bytes([quantiser] + [quantiser + k % 3 for k in range(63)]))
    marker = frame or (0xC2 if progressive else rng.choice([0xC0, 0xC1]))
    out += segment(
        marker,
        struct.pack(">BHHB", 8, height, width, len(sampling))
        + b"".join(bytes([ids[c], h << 4 | v, 0]) for c, (h, v) in enumerate(sampling)),
    )
    if interval:
        out += segment(0xDD, struct.pack(">H", interval))
    if progressive:
        script = scans or progressive_script(rng, sampling)
    else:
        scans = scans or split(rng, len(sampling))
        scans = [part for scan in scans for part in ([scan] if fits(sampling, scan) else [[c] for c in scan])]
        script = [(scan, 0, 63, 0, 0) for scan in scans]
    for scan, first, last, high, low in script[: len(script) - drop]:
        if not progressive:
            tokens = jpeg.sequential(scan, interval)
        elif first == 0:
            tokens = jpeg.dc_refine(scan, low, interval) if high else jpeg.dc_first(scan, low, interval)
        else:
            code = jpeg.ac_refine if high else jpeg.ac_first
            tokens = code(scan, first, last, low, interval)
        out += scan_bytes(scan, ids, tokens, (first, last, high, low), rng)
    return out + b"\xff\xd9", f"{len(script)} scans"


def jfif():
    return segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")


def adobe(transform):
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def random_jpeg(rng, largest=17):
    """Any layout that libjpeg reads, and some that it refuses."""
    components = rng.choice([1, 3, 3, 3, 3, 4])
    progressive = rng.random() < 0.5
    width, height = rng.randint(1, largest), rng.randint(1, largest)
    factors = rng.choice(["usual", "powers", "threes", "threes", "any"])
    if components == 1:
        sampling = [(rng.randint(1, 4), rng.randint(1, 4))]
    elif factors == "usual":
        sampling = [rng.choice([(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 2)])] + [(1, 1)] * 2
    elif factors == "powers":
        sampling = [(rng.choice([1, 2, 4]), rng.choice([1, 2, 4])) for _ in range(3)]
    elif factors == "threes":
        sampling = [(rng.choice([1, 3]), rng.choice([1, 3])) for _ in range(3)]
    else:
        # Mostly ratios such as 3:2, which are refused.
        sampling = [(rng.randint(1, 4), rng.randint(1, 4)) for _ in range(3)]
    head, ids, model = b"", None, "plain"
    if components == 4:
        sampling = sampling + [rng.choice([(1, 1), sampling[0]])]
        model, head = rng.choice([("cmyk", b""), ("cmyk adobe", adobe(0)), ("ycck", adobe(2))])
    elif components == 3:
        model, head, ids = rng.choice(
            [
                ("jfif", jfif(), None),
                ("jfif", jfif(), [7, 9, 200]),
                ("plain", b"", None),
                ("ids 0 1 2", b"", [0, 1, 2]),
                ("adobe rgb", adobe(0), None),
                ("adobe ycc", adobe(1), None),
                ("adobe 7", adobe(7), None),
                ("ids RGB", b"", [82, 71, 66]),
            ]
        )
    interval = rng.choice([0, 0, 0, 1, 2, 3, 7])
    data, layout = jpeg_file(rng, width, height, sampling, progressive, head, ids, interval)
    shown = " ".join(f"{h}x{v}" for h, v in sampling)
    kind = "progressive" if progressive else "sequential"
    return f"jpeg {kind} {width}x{height} {model} {shown}, {layout}, restart {interval}", data


def tiff(orientation, order="<", kind=3, count=1, tag=274):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + {3: "H", 4: "I", 8: "h", 9: "i"}[kind], orientation).ljust(4, b"\0")
    entries = [struct.pack(order + "HHI", 256, 4, 1) + struct.pack(order + "I", 5)]
    entries.append(struct.pack(order + "HHI", tag, kind, count) + value)
    return mark + struct.pack(order + "IH", 8, len(entries)) + b"".join(entries) + b"\0\0\0\0"


def xmp(orientation, element):
    inner = f"<tiff:Orientation>{orientation}</tiff:Orientation>" if element else ""
    attribute = "" if element else f' tiff:Orientation="{orientation}"'
    return f"<x:xmpmeta><rdf:Description{attribute}>{inner}</rdf:Description></x:xmpmeta>".encode()


def oriented_jpegs(rng):
    exif = lambda data: segment(0xE1, b"Exif\0\0" + data)
    packet = lambda data: segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + data)
    heads = {f"orientation {o}": exif(tiff(o)) for o in range(10)}
    heads["orientation 6, big end first"] = exif(tiff(6, ">"))
    heads["orientation 8, 32 bits"] = exif(tiff(8, ">", kind=4))
    heads["orientation 3, signed"] = exif(tiff(3, "<", kind=8))
    heads["orientation 6, behind JFIF"] = jfif() + exif(tiff(6))
    heads["orientation 6 in XMP, attribute"] = packet(xmp(6, False))
    heads["orientation 5 in XMP, element"] = packet(xmp(5, True))
    heads["orientation 3 in EXIF and 6 in XMP"] = packet(xmp(6, False)) + exif(tiff(3))
    heads["no orientation in EXIF, 7 in XMP"] = exif(tiff(6, tag=275)) + packet(xmp(7, False))
    heads["EXIF in two segments"] = exif(tiff(8)[:20]) + exif(tiff(8)[20:])
    heads["EXIF with its prefix twice"] = exif(b"Exif\0\0" + tiff(8))
    heads["EXIF of which the directory is cut"] = exif(tiff(6)[:15])
    heads["EXIF whose directory is far away"] = exif(tiff(6)[:4] + b"\xff\xff\xff\x7f" + tiff(6)[8:])
    for name, head in heads.items():
        yield f"jpeg {name}", jpeg_file(rng, 11, 7, [(2, 1), (1, 1), (1, 1)], False, head)[0]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png_file(rng, width, height, depth, colour, interlaced=False, before=b"", after=b"", palette=None):
    """A PNG of random samples, each row with a random filter byte over random bytes."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    raw = b""
    for x, y, dx, dy in passes:
        columns, rows = max(0, -(-(width - x) // dx)), max(0, -(-(height - y) // dy))
        if columns == 0:
            continue
        for _ in range(rows):
            size = -(-columns * samples * depth // 8)
            raw += bytes([0 if palette else rng.randrange(5)]) + rng.randbytes(size)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    if palette is not None:
        out += chunk(b"PLTE", palette)
    packed = zlib.compress(raw)
    middle = len(packed) // 2
    return out + before + chunk(b"IDAT", packed[:middle]) + chunk(b"IDAT", packed[middle:]) + after + chunk(b"IEND", b"")


def pngs(rng):
    depths = {0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16]}
    names = {0: "grey", 2: "rgb", 3: "palette", 4: "grey and alpha", 6: "rgb and alpha"}
    for colour, list_of_depths in depths.items():
        for depth in list_of_depths:
            for interlaced in (False, True):
                for width, height in ((1, 1), (13, 9), (3, 17)):
                    # A palette shorter than the samples: what lies beyond it is black.
                    palette = rng.randbytes(3 * min(200, 1 << depth)) if colour == 3 else None
                    name = f"{names[colour]}, {depth} bits{', interlaced' * interlaced}, {width}x{height}"
                    refuse = "refuse " if (colour, depth) == (0, 16) else ""
                    yield f"{refuse}png {name}", png_file(rng, width, height, depth, colour, interlaced, palette=palette)
            transparent = {0: b"\0\1", 2: b"\0\1\0\1\0\1", 3: b"\0\x80"}.get(colour)
            if transparent and (colour, depth) != (0, 16):
                palette = rng.randbytes(3 << depth) if colour == 3 else None
                data = png_file(rng, 9, 5, depth, colour, before=chunk(b"tRNS", transparent), palette=palette)
                yield f"png {names[colour]}, {depth} bits, one colour transparent", data
    for o in range(10):
        yield f"png orientation {o}", png_file(rng, 7, 4, 8, 2, before=chunk(b"eXIf", tiff(o, ">")))
    yield "png orientation 6 behind the pixels", png_file(rng, 7, 4, 8, 2, after=chunk(b"eXIf", tiff(6)))
    digits = (b"Exif\0\0" + tiff(8)).hex()
    profile = f"\nexif\n{len(digits) // 2:8}\n" + "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72)) + "\n"
    text = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile.encode()))
    yield "png orientation 8 as a raw profile", png_file(rng, 7, 4, 8, 2, before=text)
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(5, False))
    yield "png orientation 5 in XMP", png_file(rng, 7, 4, 8, 2, before=text)


def by_pillow(rng):
    """What Pillow's own encoders write."""
    pixels = np.frombuffer(rng.randbytes(24 * 20 * 4), np.uint8).reshape(20, 24, 4) // 3 + 60
    for mode in ("L", "RGB", "CMYK"):
        image = Image.fromarray(np.ascontiguousarray(pixels[:, :, : {"L": 1, "RGB": 3, "CMYK": 4}[mode]].squeeze()), mode=mode)
        for progressive in (False, True):
            for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
                out = io.BytesIO()
                image.save(out, "JPEG", quality=80, progressive=progressive, subsampling=subsampling, optimize=True)
                yield f"jpeg by Pillow, {mode}, {subsampling}{', progressive' * progressive}", out.getvalue()
    first, second = (Image.fromarray(np.ascontiguousarray(pixels[:8, i : i + 8, :3])) for i in (0, 8))
    out = io.BytesIO()
    first.save(out, "MPO", save_all=True, append_images=[second])
    yield "jpeg of two pictures (MPO)", out.getvalue()
    out = io.BytesIO()
    first.save(out, "PNG", save_all=True, append_images=[second])
    yield "png, animated", out.getvalue()
    out = io.BytesIO()
    first.save(out, "PNG", save_all=True, append_images=[second], default_image=True)
    yield "png, animated with a picture in its place", out.getvalue()


def special(rng):
    """What is refused by name, and what looks damaged but loses nothing."""
    three = [(2, 2), (1, 1), (1, 1)]
    whole = jpeg_file(rng, 17, 17, three, False, scans=[[0, 1, 2]], interval=1)[0]
    scans = jpeg_file(rng, 17, 17, three, False, scans=[[0], [1], [2]])[0]
    late = jpeg_file(rng, 17, 17, three, True)[0]
    yield "jpeg with bytes behind its end", whole + b"trailing"
    yield "jpeg with bytes before its end marker", whole[:-2] + b"\0\1\2\3" + whole[-2:]
    yield "jpeg with fill bytes before a marker", whole[:2] + b"\xff\xff" + whole[2:]
    yield "jpeg with a restart marker before its end", whole[:-2] + b"\xff\xd1" + whole[-2:]
    yield "refuse jpeg cut in its only scan, end marker", whole[:-12] + b"\xff\xd9"
    yield "refuse jpeg cut in its last scan, end marker", scans[:-5] + b"\xff\xd9"
    yield "refuse jpeg cut in its last progressive scan, end marker", late[:-4] + b"\xff\xd9"
    yield "refuse jpeg without end marker", whole[:-2]
    at = whole.index(b"\xff\xd1")
    yield "refuse jpeg with a restart marker out of order", whole[:at] + b"\xff\xd5" + whole[at + 2 :]
    yield "refuse jpeg without its last scan", jpeg_file(rng, 9, 9, three, False, scans=[[0], [1], [2]], drop=1)[0]
    script = [([0, 1, 2], 0, 0, 0, 1)] + [([c], 1, 63, 0, 0) for c in range(3)] + [([0, 1, 2], 0, 0, 1, 0)]
    yield "refuse jpeg without its last refinement", jpeg_file(rng, 9, 9, three, True, scans=script, drop=1)[0]
    yield "jpeg with all refinements", jpeg_file(rng, 9, 9, three, True, scans=script)[0]
    yield "refuse jpeg of 12 bits", whole.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c").replace(b"\xff\xc1\0\x11\x08", b"\xff\xc1\0\x11\x0c")
    for marker in (0xC3, 0xC5, 0xC9, 0xCA, 0xCB):
        yield f"refuse jpeg with frame {marker:02x}", jpeg_file(rng, 9, 9, three, marker == 0xCA, frame=marker)[0]
    yield "refuse jpeg of two components", jpeg_file(rng, 9, 9, [(1, 1), (1, 1)], False)[0]
    quantisers = whole.index(b"\xff\xdb")
    yield "refuse jpeg without quantisers", whole[:quantisers] + whole[quantisers + 69 :]
    grey = png_file(rng, 9, 9, 8, 0)
    yield "refuse png without its end", grey[:-12]
    yield "refuse png cut in its pixels", grey[: len(grey) // 2]
    yield "refuse png with a damaged pixel", grey[:50] + bytes([grey[50] ^ 1]) + grey[51:]
    yield "refuse png without a palette", png_file(rng, 9, 9, 8, 3)
    for name, data in (("gif", b"GIF89a"), ("webp", b"RIFF\x10\0\0\0WEBPVP8 "), ("empty", b""), ("text", b"an image")):
        yield f"refuse {name}", data


def pillow_pixels(data):
    """`[height, width, 3]` as the reference's loader makes them, or None where Pillow refuses."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:
        # Damaged metadata stop exif_transpose, not the pixels.
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
                return np.asarray(image.convert("RGB"))
        except Exception:
            return None


def all_cases(seed, count):
    rng = random.Random(seed)
    yield from special(rng)
    yield from oriented_jpegs(rng)
    yield from pngs(rng)
    yield from by_pillow(rng)
    for _ in range(count):
        yield random_jpeg(rng)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?")
    parser.add_argument("--files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=320)
    arguments = parser.parse_args()
    cases = list(all_cases(arguments.seed, arguments.count))
    if arguments.files:
        os.makedirs(arguments.files, exist_ok=True)
        for i, (_, data) in enumerate(cases):
            with open(os.path.join(arguments.files, f"{i:05}"), "wb") as file:
                file.write(data)
        with open(os.path.join(arguments.files, "names"), "w") as file:
            file.write("\n".join(name for name, _ in cases))
    if arguments.output:
        write(arguments.output, cases)


def write(path, cases):
    from safetensors.numpy import save_file

    pixels = [None if name.startswith("refuse") else pillow_pixels(data) for name, data in cases]
    for (name, _), image in zip(cases, pixels):
        if image is None and not name.startswith(("refuse", "jpeg sequential", "jpeg progressive")):
            raise SystemExit(f"Pillow refuses {name}")
    empty = np.zeros((0, 0, 3), np.uint8)
    pixels = [empty if image is None else image for image in pixels]
    join = lambda parts: np.frombuffer(b"".join(parts) or b"\0", np.uint8)
    tensors = {
        "names": join(["\n".join(name for name, _ in cases).encode()]),
        "files": join([data for _, data in cases]),
        "file_ends": np.cumsum([len(data) for _, data in cases]).astype(np.int64),
        "pixels": join([image.tobytes() for image in pixels]),
        "heights_widths": np.array([image.shape[:2] for image in pixels], np.int64),
    }
    about = {"pillow": PILLOW, "libjpeg_turbo": str(features.version("libjpeg_turbo")), "made_by": "tools/decode_cases.py"}
    save_file(tensors, path, metadata=about)
    refused = sum(image.size == 0 for image in pixels)
    print(f"{len(cases)} cases, {refused} to be refused, {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
