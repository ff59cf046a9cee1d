"""Pictures, against what Pillow says of the same files."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow

from helix_kernel.errors import ArgumentError, DataError, InputError
from helix_kernel.modality import Sample
from helix_kernel.testing.modalities import ModalitySuite
from helix_multimodal.modalities.image import Image


class TestImage(ModalitySuite):
    def make_modality(self):
        return Image()


class TestImageOf16Bits(ModalitySuite):
    def make_modality(self):
        return Image(depth=16)


class TestImageOfOneSize(ModalitySuite):
    def make_modality(self):
        return Image(channels="rgb", size=(6, 9))


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def pixels(data, **options):
    return Image(**options).load(io.BytesIO(data)).arrays["pixels"]


DRAW = np.random.default_rng(0)
RGB = Pillow.fromarray(DRAW.integers(0, 256, (7, 11, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "PPM", "BMP"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_file_holds_what_pillow_says(kind, mode):
    if (kind, mode) in {("JPEG", "P"), ("WEBP", "1"), ("PPM", "P")}:
        data = saved(RGB.convert("L"), kind)
    else:
        data = saved(RGB.convert(mode), kind)
    found = pixels(data)
    with Pillow.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("L" if found.shape[2] == 1 else "RGB"))
    assert found.dtype == np.uint8
    assert (found.squeeze() == expected).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_kept(kind):
    rgba = RGB.convert("RGBA")
    rgba.putalpha(Pillow.fromarray(DRAW.integers(0, 256, (7, 11), dtype=np.uint8)))
    data = saved(rgba, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    assert (pixels(data) == np.asarray(rgba)).all()


def test_a_transparent_palette_has_alpha():
    palette = RGB.quantize(4)
    data = saved(palette, "PNG", transparency=0)
    found = pixels(data)
    assert found.shape == (7, 11, 4)
    assert ((found[..., 3] == 0) == (np.asarray(palette) == 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_was_held(orientation):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    sample = Image().load(io.BytesIO(saved(RGB, "PNG", exif=exif)))
    upright = np.asarray(RGB)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, -1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright),
    }[orientation]
    assert (sample.arrays["pixels"] == turned).all()
    assert sample.metadata.get("orientation", 1) == orientation


def png(values, colour_type, extra=()):
    """Return a PNG file of 16 bits, written by the book (PNG specification, sections 5 and 11)."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)


@pytest.mark.parametrize(("n_channels", "colour_type"), [(1, 0), (3, 2)])
def test_a_colour_of_16_bits_may_be_transparent(n_channels, colour_type):
    values = DRAW.integers(0, 65536, (4, 9, n_channels), dtype=np.uint16)
    clear = values[1, 2]
    found = pixels(png(values, colour_type, [(b"tRNS", clear.astype(">u2").tobytes())]))
    assert found.shape == (4, 9, n_channels + 1)
    assert (found[..., :-1] == values).all()
    assert ((found[..., -1] == 0) == (values == clear).all(2)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_16_bits_is_turned_as_one_of_8(orientation):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    values = DRAW.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    deep = png(values.astype(np.uint16) * 257, 2, [(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))])
    shallow = saved(Pillow.fromarray(values), "PNG", exif=exif)
    assert (pixels(deep) == pixels(shallow).astype(np.uint16) * 257).all()


def test_what_needs_another_program_is_not_opened():
    with pytest.raises(DataError, match="no picture of a kind that is read"):
        pixels(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")


def test_words_that_begin_as_a_portable_map_are_no_picture():
    assert Image().sniff(b"P1 and P2 are players of the game.", None) == 0
    assert Image().sniff(b"P5 # a comment\n16 16\n255\n", None) > 0.5


@pytest.mark.parametrize(("n_channels", "colour_type"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_16_bits_are_kept(n_channels, colour_type, tmp_path):
    values = DRAW.integers(0, 65536, (5, 33, n_channels), dtype=np.uint16)
    found = pixels(png(values, colour_type))
    assert found.dtype == np.uint16
    assert (found == values).all()
    Image().save(Sample(arrays={"pixels": values}), tmp_path / "deep.png")
    with Pillow.open(tmp_path / "deep.png") as image:
        assert image.size == (33, 5)
    assert (pixels((tmp_path / "deep.png").read_bytes()) == values).all()


def test_16_bits_become_8_in_a_tensor_and_8_become_16():
    deep = Sample(arrays={"pixels": np.array([[[0], [128], [32768], [65535]]], np.uint16)})
    assert Image().encode(deep).tolist() == [[[0, 0, 128, 255]]]
    shallow = Sample(arrays={"pixels": np.array([[[0], [1], [255]]], np.uint8)})
    assert Image(depth=16).encode(shallow).tolist() == [[[0, 257, 65535]]]


def test_channels_are_as_asked_for():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = [255, 0, 51]
    data = saved(Pillow.fromarray(rgba), "PNG")
    assert pixels(data, channels="rgb", background=(0, 0, 100)).tolist() == [
        [[200, 0, 0], [0, 0, 100], [40, 0, 80]]
    ]
    assert pixels(data, channels="grey").shape == (1, 3, 1)
    assert (pixels(data, channels="rgba") == rgba).all()
    grey = np.asarray(RGB.convert("L"), np.int16)
    assert np.abs(pixels(saved(RGB, "PNG"), channels="grey")[..., 0] - grey).max() <= 1


def test_what_is_transparent_does_not_bleed_into_what_is_resized():
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4] = [10, 20, 30, 255]
    rgba[:, 4:] = [255, 255, 255, 0]
    found = pixels(saved(Pillow.fromarray(rgba), "PNG"), size=(4, 4))
    opaque = found[..., 3] > 10
    assert opaque.any()
    assert (np.abs(found[opaque][:, :3].astype(int) - [10, 20, 30]) <= 1).all()


def test_resizing_is_near_to_pillows():
    smooth = Pillow.fromarray(np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)).resize((60, 40))
    found = pixels(saved(smooth, "PNG"), size=(10, 15))[..., 0].astype(int)
    expected = np.asarray(smooth.resize((15, 10), Pillow.Resampling.BICUBIC)).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_an_animation_gives_its_first_picture_and_their_number():
    frames = [Pillow.new("RGB", (3, 2), colour) for colour in ("red", "lime", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    sample = Image().load(io.BytesIO(data))
    assert sample.metadata["frames"] == 3
    assert (sample.arrays["pixels"].reshape(-1, 3) == [255, 0, 0]).all()


def test_a_bomb_is_refused_before_it_is_decoded():
    data = png(np.zeros((1, 1, 1), np.uint16), 0)
    header = struct.pack(">II", 60000, 60000)
    for depth in (b"\x10", b"\x08"):
        body = b"IHDR" + header + depth + data[25:29]
        bomb = data[:12] + body + struct.pack(">I", zlib.crc32(body)) + data[33:]
        with pytest.raises(DataError, match="bytes when it is decoded"):
            pixels(bomb)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "PPM"])
def test_a_file_that_is_cut_short_is_refused(kind):
    data = saved(RGB.resize((64, 64)), kind)
    for length in (len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(DataError):
            pixels(data[:length])


@pytest.mark.parametrize(
    ("suffix", "is_exact"),
    [("png", True), ("webp", True), ("tiff", True), ("ppm", True), ("bmp", True), ("jpg", False)],
)
def test_a_suffix_chooses_the_format(tmp_path, suffix, is_exact):
    path = tmp_path / f"picture.{suffix}"
    Image().save(Sample(arrays={"pixels": np.asarray(RGB)}), path)
    with Pillow.open(path) as image:
        assert image.format == {"jpg": "JPEG", "ppm": "PPM"}.get(suffix, suffix.upper())
    assert (pixels(path.read_bytes()) == np.asarray(RGB)).all() == is_exact


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    rgba = Sample(arrays={"pixels": np.zeros((2, 2, 4), np.uint8)})
    with pytest.raises(InputError, match="JPEG file cannot hold 4 channels"):
        Image().save(rgba, tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"size": (0, 3)}, {"depth": 12}, {"background": (0, 0, 256)}])
def test_an_option_out_of_range_is_refused(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Image(**options)
