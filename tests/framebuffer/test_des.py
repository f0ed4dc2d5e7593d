"""DES against published vectors, and what VNC makes of a password."""

from __future__ import annotations

import os

import pytest

from examples.framebuffer.des import encrypt, vnc_response

VECTORS = [  # key, plain text, cipher text
    ("133457799BBCDFF1", "0123456789ABCDEF", "85E813540F0AB405"),
    # NIST SP 800-17, appendix A: variable plain text, variable key, permutation, substitution.
    ("0101010101010101", "8000000000000000", "95F8A5E5DD31D900"),
    ("0101010101010101", "0000000000000001", "166B40B44ABA4BD6"),
    ("8001010101010101", "0000000000000000", "95A8D72813DAA94D"),
    ("0101010101010102", "0000000000000000", "869EFD7F9F265A09"),
    ("1046913489980131", "0000000000000000", "88D55E54F54C97B4"),
    ("7CA110454A1A6E57", "01A1D6D039776742", "690F5B0D9A26939B"),
    ("0131D9619DC1376E", "5CD54CA83DEF57DA", "7A389D10354BD271"),
    ("07A1133E4A0B2686", "0248D43806F67172", "868EBB51CAB4599A"),
    ("3849674C2602319E", "51454B582DDF440A", "7178876E01F19B2A"),
    ("04B915BA43FEB5B6", "42FD443059577FA2", "AF37FB421F8C4095"),
    ("0113B970FD34F2CE", "059B5E0851CF143A", "86A560F10EC6D85B"),
    ("0170F175468FB5E6", "0756D8E0774761D2", "0CD3DA020021DC09"),
    ("43297FAD38E373FE", "762514B829BF486A", "EA676B2CB7DB2B7A"),
    ("07A7137045DA2A16", "3BDD119049372802", "DFD64A815CAF1A0F"),
    ("04689104C2FD3B2F", "26955F6835AF609A", "5C513C9C4886C088"),
    ("37D06BB516CB7546", "164D5E404F275232", "0A2AEEAE3FF4AB77"),
    ("1F08260D1AC2465E", "6B056E18759F5CCA", "EF1BF03E5DFA575A"),
    ("584023641ABA6176", "004BD6EF09176062", "88BF0DB6D70DEE56"),
    ("025816164629B007", "480D39006EE762F2", "A1F9915541020B56"),
    ("49793EBC79B3258F", "437540C8698F3CFA", "6FBF1CAFCFFD0556"),
    ("4FB05E1515AB73A7", "072D43A077075292", "2F22E49BAB7CA1AC"),
    ("49E95D6D4CA229BF", "02FE55778117F12A", "5A6B612CC26CCE4A"),
    ("018310DC409B26D6", "1D9D5C5018F728C2", "5F4C038ED12B2E41"),
    ("1C587F1C13924FEF", "305532286D6F295A", "63FAC0D034D9F793"),
]


@pytest.mark.parametrize(("key", "plain", "cipher"), VECTORS)
def test_a_published_vector(key: str, plain: str, cipher: str) -> None:
    assert encrypt(bytes.fromhex(key), bytes.fromhex(plain)).hex().upper() == cipher


def test_the_same_as_a_library_for_random_keys() -> None:
    algorithms = pytest.importorskip(
        "cryptography.hazmat.decrepit.ciphers.algorithms",
        reason="cryptography is not installed: pip install cryptography",
    )
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    for _ in range(100):
        key, block = os.urandom(8), os.urandom(8)
        encryptor = Cipher(algorithms.TripleDES(key * 3), modes.ECB()).encryptor()
        assert encrypt(key, block) == encryptor.update(block)


def test_a_password_goes_in_with_its_bits_mirrored() -> None:
    """0x01 mirrored is 0x80: the second vector's key, up to parity."""
    assert vnc_response(b"\x01", bytes(16)) == bytes.fromhex("95A8D72813DAA94D") * 2


def test_of_a_password_the_first_eight_bytes_count() -> None:
    challenge = bytes(range(16))
    assert vnc_response(b"12345678", challenge) == vnc_response(b"123456789", challenge)
    assert vnc_response(b"1234567", challenge) != vnc_response(b"12345678", challenge)
    assert vnc_response(b"", challenge) == vnc_response(bytes(8), challenge)
