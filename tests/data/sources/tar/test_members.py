import io
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslight.data.sources.tar.members import DamagedTar, Member, tar_members
from tests.data.archives import tar_bytes


def members(content: bytes) -> list[Member]:
    return list(tar_members(lambda offset, count: content[offset : offset + count], len(content)))


def entry(kind: bytes, name: str = "a/b.jpg", **more: object) -> bytes:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in more.items():
        setattr(member, key, value)
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


_PART = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=150).filter(
    lambda part: part not in (".", "..")
)
_NAME = st.lists(_PART, min_size=1, max_size=3).map("/".join).filter(lambda name: name == name.strip("/"))


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(_NAME, st.binary(max_size=1500)), max_size=5))
def test_members_are_those_that_pythons_own_module_finds(tar_format: int, wanted: list[tuple[str, bytes]]) -> None:
    try:
        content = tar_bytes(wanted, tar_format)
    except ValueError:  # a name too long for ustar
        return
    found = members(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        theirs = [(info.name, info.offset_data, info.size) for info in archive]
    assert [(member.name, member.offset, member.size) for member in found] == theirs
    assert [content[member.offset : member.offset + member.size] for member in found] == [data for _, data in wanted]


def test_a_tar_file_cut_off_anywhere_is_refused() -> None:
    content = tar_bytes([("a.jpg", bytes(700)), ("n" * 150, b"x")])
    end = 512 + 1024 + 1024 + 512 + 512 + 512  # the header of a.jpg, its data, the long name's two, a header, data, end
    assert members(content[:end])
    for length in range(end):
        with pytest.raises(DamagedTar, match="part is missing"):
            members(content[:length])


def test_zeros_between_tar_files_are_passed_over_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tar_bytes([("a.jpg", b"a")]), tar_bytes([("b.jpg", b"b")])
    for gap in (0, 512, 100 * 512):
        content = one + bytes(gap) + other
        assert [content[member.offset] for member in members(content)] == [ord("a"), ord("b")]
    monkeypatch.setattr("sslight.data.sources.tar.members.LARGEST_GAP", 50 * 512)
    with pytest.raises(DamagedTar, match="has more than 25,600 bytes of zeros"):
        members(content)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damage_anywhere_is_refused_or_harmless(data: st.DataObject) -> None:
    content = bytearray(tar_bytes([("a.jpg", b"x" * 600), ("ü" * 80, b"y")], tarfile.PAX_FORMAT))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = members(bytes(content))
    except DamagedTar:
        return
    assert all(0 <= member.offset <= member.offset + member.size <= len(content) for member in found)


@pytest.mark.parametrize("name", ["/etc/passwd.jpg", "../x.jpg", "a/../../x.jpg", "a/.."])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(DamagedTar, match="lies outside its folder; make it again with relative names"):
        members(tar_bytes([(name, b"x")]))


def test_leading_dots_and_slashes_within_names_are_dropped() -> None:
    assert [member.name for member in members(tar_bytes([("./a//b.jpg", b"x")]))] == ["a/b.jpg"]


def test_folders_and_devices_are_left_out_and_links_are_told() -> None:
    for kind in (tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        assert members(entry(kind)) == []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        [member] = members(entry(kind, linkname="/etc/passwd"))
        assert member.is_link


def test_a_size_beyond_the_file_is_refused_before_anything_is_read() -> None:
    for size in (10**9, 2**60, 2**80):  # the last ones in base 256
        with pytest.raises(DamagedTar, match=r"ends within a/b.jpg, so a part is missing"):
            members(entry(tarfile.REGTYPE, size=size))
    with pytest.raises(DamagedTar, match=r"part is missing|has a header of"):
        members(entry(tarfile.GNUTYPE_LONGNAME, size=2**40))


@pytest.mark.parametrize("size", ["9" * 21, "9" * 5000, "-1", "", "1.5"])
def test_a_size_in_a_pax_header_must_be_a_number(size: str) -> None:
    record = f" size={size}\n"
    length = len(record) + 1
    while len(f"{length}{record}") != length:
        length += 1
    extension = f"{length}{record}".encode()
    header = entry(tarfile.XHDTYPE, size=len(extension))[:512]
    content = header + extension.ljust(-(-len(extension) // 512) * 512, b"\0") + entry(tarfile.REGTYPE)
    with pytest.raises(DamagedTar, match="pax header with an invalid size"):
        members(content)


def test_a_huge_extension_header_is_refused() -> None:
    content = entry(tarfile.GNUTYPE_LONGNAME, size=2**21) + bytes(2**21)
    with pytest.raises(DamagedTar, match="has a header of 2,097,152 bytes"):
        members(content)


def test_sparse_files_are_refused() -> None:
    with pytest.raises(DamagedTar, match=r"stores a/b.jpg as a sparse file; make it again without --sparse"):
        members(entry(tarfile.GNUTYPE_SPARSE))
