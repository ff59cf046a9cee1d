"""Files of points are read as their formats' descriptions say, and damaged ones end in one error."""

from __future__ import annotations

import contextlib
import io
import math
import random
import struct
import time
import tracemalloc
from pathlib import Path

import laspy
import numpy as np
import pytest

from helix_kernel.errors import ArgumentError, DataError, DependencyError, InputError
from helix_kernel.modality import Sample
from helix_multimodal.modalities.point_cloud import PointCloud
from helix_multimodal.modalities.point_files import pcd

POINTS = np.array([[0.5, -1.25, 2.0], [1e-3, 7.0, -300.0], [0.1, 0.2, 0.3]], np.float32)
COLOURS = np.array([[0, 128, 255], [1, 2, 3], [254, 0, 9]], np.uint8)
NORMALS = np.array([[0, 0, 1], [1, 0, 0], [0.6, -0.8, 0]], np.float32)


def load(data, **options):
    return PointCloud(**options).load(io.BytesIO(data))


def saved(sample, path):
    PointCloud().save(sample, path)
    return path.read_bytes()


def full_sample(dtype=np.float32):
    arrays = {"points": POINTS.astype(dtype), "normals": NORMALS, "colours": COLOURS}
    return Sample(arrays=arrays)


def ply(order, *, before=(), lists=False):
    """Write a file as its format's description has it, number by number with struct or as text."""
    rows = [(*p, *c) for p, c in zip(POINTS.tolist(), COLOURS.tolist(), strict=True)]
    lengths = (2, 0, 5) if lists else ()
    head = ["ply", f"format {order} 1.0", "comment made by hand", "obj_info none"]
    head += ["element camera 2", "property list uchar short view", "property double f"] if before else []
    head += ["element vertex 3", "property float x", "property float y", "property float z"]
    head += ["property list int ushort neighbours"] if lists else []
    head += ["property uchar red", "property uchar green", "property uchar blue"]
    head += ["element face 1", "property list uchar int vertex_indices", "end_header", ""]
    body = [[("B", len(view)), *[("h", v) for v in view], ("d", 0.5)] for view in before]
    for at, row in enumerate(rows):
        listed = [("i", lengths[at]), *[("H", 40_000 + at)] * lengths[at]] if lists else []
        body.append([*[("f", v) for v in row[:3]], *listed, *[("B", v) for v in row[3:]]])
    body.append([("B", 3), ("i", 0), ("i", 1), ("i", 2)])
    if order == "ascii":
        text = "\n".join(" ".join(repr(value) for _, value in line) for line in body) + "\n"
        return "\n".join(head).encode() + text.encode()
    sign = {"binary_little_endian": "<", "binary_big_endian": ">"}[order]
    packed = b"".join(struct.pack(f"{sign}{code}", value) for line in body for code, value in line)
    return "\n".join(head).encode() + packed


def pcd_file(way):
    """Write a file of the Point Cloud Library, with a field of two numbers that no one asks for."""
    packed = (COLOURS.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(1, dtype=np.uint32)
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z _ normal_x normal_y normal_z rgb\nSIZE 4 4 4 1 4 4 4 4\n"
        f"TYPE F F F U F F F {'U' if way == 'ascii' else 'F'}\nCOUNT 1 1 1 2 1 1 1 1\nWIDTH 3\nHEIGHT 1\n"
        f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 3\nDATA {way}\n"
    ).encode()
    columns = [*[c.astype("<f4") for c in POINTS.T], np.full((3, 2), 7, np.uint8)]
    columns += [*[c.astype("<f4") for c in NORMALS.T], packed.astype("<u4")]
    if way == "ascii":
        lines = [" ".join(str(v) for c in columns for v in np.ravel(c[row]).tolist()) for row in range(3)]
        return head + "\n".join(lines).encode()
    if way == "binary":
        return head + b"".join(c[row].tobytes() for row in range(3) for c in columns)
    body = b"".join(c.tobytes() for c in columns)
    packed_body = lzf(body)
    return head + struct.pack("<II", len(packed_body), len(body)) + packed_body


def lzf(data):
    """Pack by LZF in the simplest way: repeats of the three bytes before, else bytes as they are."""
    out, at = bytearray(), 0
    while at < len(data):
        run = 0
        while at + run < len(data) and run < 264 and at >= 3 and data[at + run] == data[at + run - 3]:
            run += 1
        if run >= 3:
            length = run - 2
            out += bytes([length << 5, 2]) if length < 7 else bytes([7 << 5, length - 7, 2])
            at += run
        else:
            out += bytes([0, data[at]])
            at += 1
    return bytes(out)


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("before", [(), ([1, -2, 3], [4, 5, 6]), ([], [7])])
@pytest.mark.parametrize("lists", [False, True])
def test_ply_of_each_order_gives_its_vertices_whatever_stands_around_them(order, before, lists):
    sample = load(ply(order, before=before, lists=lists))
    assert sample.arrays["points"].dtype == np.float32
    np.testing.assert_array_equal(sample.arrays["points"], POINTS)
    np.testing.assert_array_equal(sample.arrays["colours"], COLOURS)


@pytest.mark.parametrize("way", ["ascii", "binary", "binary_compressed"])
def test_pcd_of_each_way_gives_points_normals_and_packed_colours(way):
    sample = load(pcd_file(way))
    np.testing.assert_array_equal(sample.arrays["points"], POINTS)
    np.testing.assert_array_equal(sample.arrays["normals"], NORMALS)
    np.testing.assert_array_equal(sample.arrays["colours"], COLOURS)


@pytest.mark.parametrize("size", [1, 2, 31, 33, 700, 20_000])
def test_lzf_gives_back_what_was_packed(size):
    data = (b"abcabcabcabc" + random.Random(size).randbytes(40)) * 400
    packed = lzf(data[:size])
    assert pcd.decompress(packed, len(data[:size]), "it") == data[:size]


def test_obj_takes_vertices_colours_and_the_normals_that_faces_name():
    text = (
        b"# by hand\nmtllib a.mtl\no thing\nv 0 0 1 1.0 0.5 0\nv 1 0 0 0 0 1\n  v 0 1e0 .5 0 0 0\n"
        b"vn 0 0 1\nvn 0 1 0\nvt 0 0\nf 1/1/2 2/1/1 3/1/1\nf 1//-1 2//1 3//1\n"
    )
    sample = load(text)
    assert sample.arrays["points"].tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0.5]]
    assert sample.arrays["colours"].tolist() == [[255, 128, 0], [0, 0, 255], [0, 0, 0]]
    assert sample.arrays["normals"].tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_a_vertex_with_two_normals_has_none():
    text = b"v 0 0 1\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nvn 0 1 0\nf 1//1 2//1 3//1\nf 1//2 2//1 3//1\n"
    assert sorted(load(text).arrays) == ["points"]


def test_vrml_gives_the_vertices_of_all_shapes():
    text = (
        b"#VRML V2.0 utf8\nShape { geometry IndexedFaceSet { coordIndex [0,1,2,-1]\n"
        b"coord Coordinate { point [0 0 0, 1 0 0, # a comment [ 9 9\n 0 1 0] } } }\n"
        b"Shape { geometry IndexedFaceSet { coord DEF A Coordinate{point[.5 -1e-2 +3]}\n"
        b"texCoord TextureCoordinate { point [0 0, 1 1, 0 1] } } }"
    )
    expected = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, -0.01, 3]], np.float32)
    np.testing.assert_array_equal(load(text).arrays["points"], expected)
    still = b"Transform { translation 0 0 0 rotation 0 0 1 0 scale 1 1 1 children ["
    np.testing.assert_array_equal(load(text.replace(b"Shape", still, 1)).arrays["points"], expected)
    for move in (b"translation 0 0 1", b"rotation 0 0 1 0.5", b"scale 2 2 2"):
        with pytest.raises(DataError, match="moves its shapes"):
            load(text.replace(b"Shape", b"Transform { " + move + b" children [", 1))


def test_las_is_read_as_laspy_reads_it(tmp_path):
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales, header.offsets = [0.01, 0.01, 0.001], [500_000.0, 4_000_000.0, 0.0]
    las = laspy.LasData(header)
    las.xyz = np.array([[500_000.25, 4_000_000.0, 12.345], [500_001.5, 4_000_003.12, -1.0]])
    las.red, las.green, las.blue = np.array([[65535, 0], [257 * 7, 257], [0, 257 * 200]], np.uint16)
    las.write(tmp_path / "scan.las")
    sample = PointCloud().load(tmp_path / "scan.las")
    np.testing.assert_allclose(sample.arrays["points"], las.xyz, rtol=0, atol=1e-9)
    assert sample.arrays["colours"].tolist() == [[255, 7, 0], [0, 1, 200]]


def test_compressed_las_says_what_is_missing():
    file = io.BytesIO()
    PointCloud().save(full_sample(), named(file, "x.las"))
    data = bytearray(file.getvalue())
    data[104] |= 0x80
    if laspy.LazBackend.detect_available():
        pytest.skip("a backend of LAZ is installed, so that nothing is missing")
    with pytest.raises(DependencyError, match="pip install lazrs"):
        load(bytes(data))


def named(file, name):
    file.name = name
    return file


@pytest.mark.parametrize("suffix", [".ply", ".PCD", ".obj", ".las", ".bin", ""])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_format_that_is_written_is_read(suffix, dtype, tmp_path):
    sample = full_sample(dtype)
    PointCloud().save(sample, tmp_path / f"cloud{suffix}")
    back = PointCloud().load(tmp_path / f"cloud{suffix}")
    exact = suffix != ".las"
    for name, array in sample.arrays.items():
        given = back.arrays[name]
        atol = 0 if exact or name != "points" else 1.5e-7
        np.testing.assert_allclose(given.astype(np.float64), array.astype(np.float64), rtol=0, atol=atol)
    if suffix.lower() in {".ply", ".pcd"}:
        assert not sample.differences(back)


def test_las_keeps_what_it_read(tmp_path):
    points = np.array([[431_000.01, 5_000_000.5, 12.34], [431_999.99, 5_000_001.25, -3.0]])
    first, second = tmp_path / "a.las", tmp_path / "b.las"
    PointCloud().save(Sample(arrays={"points": points}), first)
    read = PointCloud().load(first)
    np.testing.assert_allclose(read.arrays["points"], points, rtol=0, atol=1e-6)
    PointCloud().save(read, second)
    np.testing.assert_array_equal(PointCloud().load(second).arrays["points"], read.arrays["points"])


def sources():
    """Return a file of each format and way by what it is."""
    files = {f"ply {order}": ply(order, before=([1], [2, 3])) for order in ("ascii", "binary_big_endian")}
    files |= {f"pcd {way}": pcd_file(way) for way in ("ascii", "binary", "binary_compressed")}
    for suffix in (".las", ".obj"):
        file = named(io.BytesIO(), f"x{suffix}")
        PointCloud().save(full_sample(), file)
        files[suffix[1:]] = file.getvalue()
    files["vrml"] = b"#VRML V2.0 utf8\nShape{coord Coordinate{point [0 0 1, 1 2 3, 4.5 6 7]}}"
    return files


@pytest.mark.parametrize("what", sources())
def test_damage_ends_in_one_error_or_in_a_sample_and_soon(what):
    data, draw = sources()[what], random.Random(7)
    began = time.monotonic()
    for trial in range(300):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 6)):
            changed[draw.randrange(len(changed))] = draw.choice(
                (0, 32, 45, 57, 127, 255, draw.randrange(256))
            )
        if trial % 3 == 0:
            del changed[draw.randrange(len(changed)) :]
        with contextlib.suppress(DataError, DependencyError):
            sample = load(bytes(changed), max_bytes=1 << 22)
            assert np.isfinite(sample.arrays["points"]).all()
    assert time.monotonic() - began < 20


HUGE = 10**17


def ply_header(*lines, way="binary_little_endian"):
    return "\n".join(["ply", f"format {way} 1.0", *lines, "end_header", ""]).encode()


def las_header(records, count):
    return b"LASF" + bytes(90) + struct.pack("<HIIBHI", 227, 227, records, 0, 20, count) + bytes(200)


CORNER = ["element vertex 1", "property char x", "property char y", "property char z"]
MANY = [f"element vertex {HUGE}", *CORNER[1:]]
HOSTILE = {
    "a PLY of many vertices": ply_header(*MANY) + bytes(90),
    "a PLY of many vertices in text": ply_header(*MANY, way="ascii") + b"1 2 3\n",
    "a PLY of many elements of no size": ply_header(f"element a {HUGE}", *CORNER, f"element b {HUGE}"),
    "a PLY of a long list": ply_header("element a 1", "property list uint double l", *CORNER) + b"\xff" * 8,
    "a PLY of a list of less than nothing": ply_header("element a 1", "property list char int l", *CORNER)
    + b"\xff" * 8,
    "a PLY whose list is as long as no number": ply_header(
        "element a 1", "property list int int l", *CORNER, way="ascii"
    )
    + b"nan 1 2 3\n",
    "a PLY of no vertices": ply_header("element vertex 0", "property float x", way="ascii"),
    "a PLY without end": b"ply\nformat ascii 1.0\n" + b"comment x\n" * 50_000,
    "a PLY of words": ply("ascii").replace(b"0.5", b"one"),
    "a PCD of many points": pcd_file("binary")
    .replace(b"WIDTH 3", b"WIDTH %d" % HUGE)
    .replace(b"POINTS 3\n", b""),
    "a PCD of large fields": pcd_file("binary").replace(b"COUNT 1", b"COUNT 999999"),
    "a PCD that unpacks to much": pcd_file("binary_compressed")
    .replace(b"WIDTH 3", b"WIDTH 30000000")
    .replace(b"POINTS 3\n", b""),
    "a PCD that repeats what is not there": pcd_file("binary_compressed")[:-8] + b"\xff\xff\xff" * 4,
    "a LAS of many points": las_header(0, 2**32 - 1),
    "a LAS of many records": las_header(2**32 - 1, 1),
    "an OBJ of ragged lines": b"v 1 2 3\nv 1 2 3 4 5 6\n",
    "an OBJ of words": b"v 1 2 3\nv a b c\n",
    "an OBJ of a long number": b"v 1 2 3\nv " + b"1" * 2_000_000 + b"x 2 3\n",
    "a VRML of no points": b"#VRML V2.0 utf8\nGroup {}\n",
    "a VRML of brackets": b"#VRML V2.0 utf8\n" + b"Coordinate { point [" * 50_000,
    "a VRML of blanks": b"#VRML V2.0 utf8\n" + (b"Coordinate{point" + b" " * 1000) * 1000,
    "a VRML of a long number": b"#VRML V2.0 utf8\ntranslation " + b"1" * 1_000_000 + b"x 1 1",
    "nothing": b"",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_soon_and_without_much_memory(what):
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="the file"):
            load(HOSTILE[what])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 5
    assert most < 64 << 20


def test_a_file_larger_than_allowed_is_refused(tmp_path):
    data = saved(full_sample(), tmp_path / "a.ply")
    load(data, max_bytes=len(data))
    with pytest.raises(DataError, match="max_bytes=50"):
        load(data, max_bytes=50)
    text = ply("ascii")
    with pytest.raises(DataError, match=f"max_bytes={len(text)}"):
        load(text + b" 0" * len(text), max_bytes=len(text))
    short = ply_header("element vertex 1", *CORNER[1:], way="ascii") + b"1 " * 999
    with pytest.raises(DataError, match="would take"):
        load(short, max_bytes=len(short))


def test_points_without_a_place_are_left_out(tmp_path):
    data = pcd_file("ascii").replace(b"0.5 -1.25", b"nan nan", 1)
    sample = load(data)
    np.testing.assert_array_equal(sample.arrays["points"], POINTS[1:])
    np.testing.assert_array_equal(sample.arrays["colours"], COLOURS[1:])


def test_max_points_are_spread_over_the_file(tmp_path):
    points = np.arange(30, dtype=np.float32).reshape(10, 3)
    PointCloud().save(Sample(arrays={"points": points}), tmp_path / "a.ply")
    kept = PointCloud(max_points=4).load(tmp_path / "a.ply").arrays["points"]
    np.testing.assert_array_equal(kept, points[[0, 2, 5, 7]])


def test_a_feature_that_a_file_lacks_is_named(tmp_path):
    PointCloud().save(Sample(arrays={"points": POINTS}), tmp_path / "a.ply")
    with pytest.raises(DataError, match=r"a\.ply has no colours"):
        PointCloud(features=["colours"]).load(tmp_path / "a.ply")


def test_columns_of_a_tensor_stand_in_one_order():
    tensor = PointCloud(features=["normals", "colours"]).encode(full_sample(np.float64))
    expected = np.concatenate([POINTS, COLOURS / 255, NORMALS], axis=1).astype(np.float32)
    np.testing.assert_array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"points": POINTS[:, :2]}, "points are float32"),
        ({"points": POINTS[:0]}, "points are float32"),
        ({"points": POINTS.astype(np.int64)}, "points are int64"),
        ({"points": POINTS, "colours": COLOURS[:2]}, "colours are uint8"),
        ({"points": POINTS, "colours": COLOURS / 255}, "colours are float64"),
        ({"points": POINTS, "normals": np.full((3, 3), math.inf)}, "normals are not all finite"),
        ({"points": np.full((3, 3), math.nan)}, "points are not all finite"),
        ({"colours": COLOURS}, "no array 'points'"),
    ],
)
def test_a_sample_that_no_file_holds_is_refused(arrays, message, tmp_path):
    with pytest.raises(InputError, match=message):
        PointCloud().save(Sample(arrays=arrays), tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("features", [["colors"], ["colours", "colours"]])
def test_wrong_features_are_refused(features):
    with pytest.raises(ArgumentError, match="features"):
        PointCloud(features=features)


def test_numbers_beyond_float32_are_refused_by_encode_alone(tmp_path):
    sample = Sample(arrays={"points": np.array([[1e300, 0, 0]])})
    PointCloud().save(sample, tmp_path / "a.ply")
    assert not sample.differences(PointCloud().load(tmp_path / "a.ply"))
    with pytest.raises(ArgumentError, match="float32"):
        PointCloud().encode(sample)


@pytest.mark.parametrize(
    ("name", "n_points"),
    [("surface_matching/data/parasaurolophus_6700.ply", 6700), ("viz/data/bunny.ply", 1889)],
)
def test_scans_of_opencv_are_read(name, n_points):
    path = Path("/usr/share/doc/opencv-doc/examples") / name
    if not path.exists():
        pytest.skip("the package opencv-doc is not installed")
    sample = PointCloud().load(path)
    text = path.read_text().partition("end_header\n")[2].splitlines()[:n_points]
    expected = np.array([line.split()[:3] for line in text], np.float64).astype(np.float32)
    np.testing.assert_array_equal(sample.arrays["points"], expected)
    assert PointCloud().sniff(path.read_bytes()[:4096], "x.txt") > 0.5


def test_shapes_of_kicad_are_read():
    folder = Path("/usr/share/kicad/3dmodels/Package_SO.3dshapes")
    if not folder.is_dir():
        pytest.skip("the package kicad-packages3d is not installed")
    for path in sorted(folder.glob("*.wrl"))[::40]:
        sample = PointCloud(max_points=500).load(path)
        assert sample.arrays["points"].shape[0] <= 500
        assert PointCloud().sniff(path.read_bytes()[:4096], None) > 0.5


@pytest.mark.parametrize(
    ("head", "likely"),
    [
        (b"ply\nformat ascii 1.0\n", True),
        (b"ply on ply\n", False),
        (b"# a scan\nVERSION 0.7\nFIELDS x y z\n", True),
        (b"VERSION 0.7\nauthor me\n", False),
        (b"LASF\0\0", True),
        (b"#VRML V2.0 utf8\n", True),
        (b"# made by me\nv 1 2 3\nvn 0 0 1\n", True),
        (b"v 1 2 3\nhello\nv 1 2 3\n", False),
        (b"v is for vertex\n", False),
        (b"# nothing\n", False),
    ],
)
def test_files_are_told_by_what_they_begin_with(head, likely):
    for name in (None, "scan.obj", "scan.ply", "notes.txt"):
        assert (PointCloud().sniff(head, name) > 0.5) == likely


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian"])
def test_a_mesh_whose_faces_are_cut_off_is_refused(order):
    data = ply(order).replace(b"element face 1", b"element face 99")
    with pytest.raises(DataError, match="is cut short"):
        load(data)
