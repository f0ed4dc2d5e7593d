"""Transactions: what they see, when they can be committed, what a commit tells, and their ends."""

from __future__ import annotations

import pytest

from hypervisor.store import Store
from hypervisor.store_permissions import Caller
from hypervisor.store_quota import Quota
from hypervisor.store_transactions import Transactions
from tests.hypervisor.store_script import Script, play

TABLES = {
    "a transaction sees the store as it was at its start, and its own changes": [
        ("0 write /a old", "-"),
        ("0 start t", "1"),
        ("0 write /a new", "-"),
        ("0 write /b made", "-"),
        ("0/t read /a", "old"),
        ("0/t read /b", "ENOENT"),
        ("0/t ls /", "a local"),
        ("0/t write /a mine", "-"),
        ("0/t write /c/d deep", "-"),
        ("0/t read /a", "mine"),
        ("0/t ls /", "a c local"),
        ("0/t ls /c", "d"),
        ("0 read /a", "new"),
        ("0 read /c/d", "ENOENT"),
        ("0/t abort", "-"),
        ("0 read /a", "new"),
        ("0 ls /", "a b local"),
    ],
    "a commit does all of it": [
        ("0 write /x/1 a", "-"),
        ("0 write /x/2/3 b", "-"),
        ("0 start t", "1"),
        ("0/t write /x/1 A", "-"),
        ("0/t rm /x/2", "-"),
        ("0/t write /y/z c", "-"),
        ("0/t chmod /x n0 r1", "-"),
        ("0/t commit", "-"),
        ("0 read /x/1", "A"),
        ("0 ls /x", "1"),
        ("0 read /y/z", "c"),
        ("0 perms /x", "n0 r1"),
        ("0/t read /x", "ENOENT"),
        ("0/t commit", "ENOENT"),
    ],
    "of two that read and write the same, the second to end has to start again": [
        ("0 write /n 1", "-"),
        ("0 start s", "1"),
        ("0 start t", "2"),
        ("0/s read /n", "1"),
        ("0/t read /n", "1"),
        ("0/s write /n 2", "-"),
        ("0/t write /n 2", "-"),
        ("0/s commit", "-"),
        ("0/t commit", "EAGAIN"),
        ("0/t commit", "ENOENT"),
        ("0 read /n", "2"),
    ],
    "write skew is not possible": [
        ("0 write /a 1", "-"),
        ("0 write /b 1", "-"),
        ("0 start s", "1"),
        ("0 start t", "2"),
        ("0/s read /a", "1"),
        ("0/t read /b", "1"),
        ("0/s write /b 0", "-"),
        ("0/t write /a 0", "-"),
        ("0/s commit", "-"),
        ("0/t commit", "EAGAIN"),
    ],
    "what a transaction has removed and made again may have no memory of what was there": [
        ("0 write /a/b x", "-"),
        ("0 write /a/c y", "-"),
        ("0 start t", "1"),
        ("0/t rm /a", "-"),
        ("0/t write /a/d z", "-"),
        ("0/t ls /a", "d"),
        ("0/t commit", "-"),
        ("0 ls /a", "d"),
        ("0 read /a/d", "z"),
    ],
    "what was made and removed has never been": [
        ("0 watch / w", "0 / w"),
        ("0 start t", "1"),
        ("0/t write /a/b x", "-"),
        ("0/t rm /a", "-"),
        ("0/t commit", "-"),
        ("0 ls /", "local"),
    ],
    "made, removed and made once more, with the parents": [
        ("0 start t", "1"),
        ("0/t write /n/c x", "-"),
        ("0/t rm /n", "-"),
        ("0/t write /n/c y", "-"),
        ("0/t rm /n/c", "-"),
        ("0/t write /n/d/e z", "-"),
        ("0/t commit", "-"),
        ("0 ls /n", "d"),
        ("0 read /n/d/e", "z"),
    ],
    "an operation that is refused leaves the transaction as it was": [
        ("1 start t", "1"),
        ("1/t write x 1", "-"),
        ("1/t write /secret", "EACCES"),
        ("1/t rm nothing/here", "ENOENT"),
        ("1/t write // 2", "EINVAL"),
        ("1/t commit", "-"),
        ("1 read x", "1"),
    ],
    "permissions are those of the transaction": [
        ("1 write x secret", "-"),
        ("1 start t", "1"),
        ("1/t chmod x n1 r2", "-"),
        ("2 read /local/domain/1/x", "EACCES"),
        ("1/t commit", "-"),
        ("2 read /local/domain/1/x", "secret"),
    ],
    "one transaction is not in another, and numbers are a connection's own": [
        ("1 start t", "1"),
        ("1/t start u", "EBUSY"),
        ("1.1 start t", "1"),
        ("2 start t", "1"),
        ("1/t write x 1", "-"),
        ("1.1/t read x", "ENOENT"),
        ("3/t read x", "ENOENT"),
        ("3/none start u", "ENOENT"),
        ("1 start u", "2"),
        ("1/t abort", "-"),
        ("1 start v", "3"),
        ("1.1/t commit", "-"),
        ("1 read x", "ENOENT"),
        ("0 commit", "ENOENT"),
    ],
    "a reset, the end of a connection and the end of a domain abort": [
        ("1 start t", "1"),
        ("1 start u", "2"),
        ("1.1 start t", "1"),
        ("1 reset", "-"),
        ("1/t commit", "ENOENT"),
        ("1/u commit", "ENOENT"),
        ("1.1/t write x", "-"),
        ("1.1 disconnect", "-"),
        ("1.1/t commit", "ENOENT"),
        ("1.2 start t", "1"),
        ("0 release 1", "-"),
        ("0 introduce 1", "-"),
        ("1.2/t commit", "ENOENT"),
        ("1 start t", "1"),
        ("0 introduce 1", "-"),
        ("1/t commit", "ENOENT"),
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_of_transactions(name: str) -> None:
    play(Script(), TABLES[name])


# --- conflicts ------------------------------------------------------------------------------------

OK, AGAIN = "-", "EAGAIN"


@pytest.mark.parametrize(
    ("seen", "meanwhile", "end"),
    [
        ("read /d/a", "write /d/a new", AGAIN),
        ("read /d/a", "write /d/a", AGAIN),  # the same value: somebody has written all the same
        ("read /d/a", "chmod /d/a n1", AGAIN),
        ("read /d/a", "rm /d/a", AGAIN),
        ("read /d/a", "rm /d", AGAIN),
        ("read /d/a", "write /d/b x", OK),
        ("read /d/a", "write /d x", OK),
        ("read /d/a", "write /d/a/below x", OK),
        ("perms /d/a", "chmod /d/a n1", AGAIN),
        ("read /d/none", "write /d/none x", AGAIN),
        ("read /d/none", "write /d/none/below x", AGAIN),
        ("read /d/none", "write /d/other x", OK),
        ("read /d/none", "chmod /d r0", AGAIN),  # it was the parent that let us know
        ("ls /d", "write /d/none x", AGAIN),
        ("ls /d", "rm /d/a", AGAIN),
        ("ls /d", "write /d/a new", OK),
        ("ls /d", "write /d/a/below x", OK),
        ("ls /d", "rm /d/none", OK),
        ("write /d/a mine", "write /d/a new", AGAIN),
        ("write /d/a mine", "rm /d/a", AGAIN),
        ("write /d/a mine", "write /d/b new", OK),
        ("write /d/new x", "write /d/other y", OK),
        ("write /d/new x", "write /d/new y", AGAIN),
        ("write /d/new x", "rm /d", AGAIN),
        ("write /d/new x", "chmod /d n1", AGAIN),  # it has inherited from it
        ("write /d/new/deep x", "write /d/new y", AGAIN),
        ("mkdir /d/a", "write /d/a new", AGAIN),
        ("mkdir /d/new", "mkdir /d/new", AGAIN),
        ("chmod /d/a n0 r1", "write /d/a new", AGAIN),
        ("rm /d", "write /d/a new", AGAIN),
        ("rm /d", "write /d/a/below x", AGAIN),
        ("rm /d", "write /d/new x", AGAIN),
        ("rm /d", "chmod /d/a n1", AGAIN),
        ("rm /d/a", "write /d/b x", OK),
        ("rm /d/none", "write /d/none x", AGAIN),
        ("rm /d/none", "rm /d", AGAIN),
        ("rm /no/ne/x", "mkdir /no/ne", AGAIN),
        ("read /no/ne/x", "mkdir /no", AGAIN),  # it might not let us know any more
        ("read /no/ne/x", "mkdir /d/no", OK),
        ("read /", "write /d/a new", OK),
        ("read /d/a", "read /d/a", OK),
        ("read /d/a", "write /elsewhere x", OK),
    ],
)
def test_a_commit_after(seen: str, meanwhile: str, end: str) -> None:
    script = Script()
    script.run("0 write /d/a", "0 start t", f"0/t {seen}", f"0 {meanwhile}")
    assert script("0/t commit") == end


def test_looking_once_more_forgets_nothing() -> None:
    script = Script()
    script.run("0 write /d/a x", "0 start t", "0/t ls /d", "0/t read /d", "0 write /d/b y")
    assert script("0/t commit") == "EAGAIN"


def test_a_node_that_was_removed_and_made_again_is_another() -> None:
    script = Script()
    script.run("0 write /a x", "0 start t", "0/t read /a", "0 rm /a", "0 write /a x")
    assert script("0/t commit") == "EAGAIN"


def test_what_it_writes_itself_is_no_conflict() -> None:
    script = Script()
    script.run("0 write /a x", "0 start t", "0/t read /a", "0/t write /a y", "0/t read /a")
    assert script.run("0/t ls /", "0/t rm /a", "0/t ls /", "0/t commit", "0 read /a") == [
        "a local", "-", "local", "-", "ENOENT",
    ]  # fmt: skip


def test_a_commit_looks_only_at_what_the_transaction_has_looked_at() -> None:
    script = Script()
    for i in range(200):
        script(f"0 write /many/{i} x")
    script.run("0 start t", "0/t read /many/7", "0/t ls /many/8")
    transaction = script.store._transactions.get(Caller(0), 1)
    assert transaction.tree.accessed is not None
    assert list(transaction.tree.accessed) == ["/many/7", "/many/8"]


# --- what a commit tells --------------------------------------------------------------------------


def test_a_commit_tells_once_for_each_changed_node_in_their_order() -> None:
    play(
        Script(),
        [
            ("0 write /a/old x", "-"),
            ("0 write /a/gone/below x", "-"),
            ("0 watch /a all", "0 /a all"),
            ("0 watch /a/gone/below below", "0 /a/gone/below below"),
            ("0 start t", "1"),
            ("0/t write /a/new/1 x", "-"),
            ("0/t write /a/old y", "-"),
            ("0/t rm /a/gone", "-"),
            ("0/t write /a/old z", "-"),
            ("0/t write /a/new/1 y", "-"),
            ("0/t mkdir /a/last", "-"),
            (
                "0/t commit",
                "0 /a/new/1 all; 0 /a/old all; 0 /a/gone/below below; 0 /a/gone all; 0 /a/last all",
            ),
        ],
    )


def test_who_is_told_is_who_has_been_told_of_any_of_its_changes() -> None:
    play(
        Script(),
        [
            ("0 write /a/b/c x", "-"),
            ("0 watch / all", "0 / all"),
            ("0 watch /a/b b", "0 /a/b b"),
            ("0 start t", "1"),
            ("0/t write /a/b y", "-"),  # this tells both
            ("0/t rm /a", "-"),  # and this only /a/b of /a/b
            ("0/t write /a/b/d", "-"),  # and this nobody of /a/b
            ("0/t commit", "0 /a all; 0 /a/b all; 0 /a/b b; 0 /a/b/d all; 0 /a/b/d b"),
        ],
    )


def test_an_abort_or_a_conflict_tells_nothing() -> None:
    play(
        Script(),
        [
            ("0 watch /a w", "0 /a w"),
            ("0 start t", "1"),
            ("0/t write /a x", "-"),
            ("0/t abort", "-"),
            ("0 start t", "2"),
            ("0/t write /a x", "-"),
            ("0 write /a y", "0 /a w"),
            ("0/t commit", "EAGAIN"),
        ],
    )


def test_the_changes_of_a_commit_are_one_for_each_node_left_different() -> None:
    script = Script()
    script.run("0 write /a/b/c x", "0 write /k v")
    revision = script.store.revision
    script.run(
        "0 start t",
        "0/t rm /a",
        "0/t write /a/b y",
        "0/t write /tmp/x z",
        "0/t rm /tmp",
        "0/t write /k w",
        "0/t write /k w2",
        "0/t commit",
    )
    assert script(f"0 since / {revision}") == (
        "/a/b/c: x -> absent, /a: '' -> '', /a/b: '' -> y, /k: v -> w2"
    )
    assert script.store.revision == revision + 4


# --- quotas and numbers ---------------------------------------------------------------------------


def test_a_guest_may_have_so_many_transactions_and_each_so_many_nodes() -> None:
    play(
        Script(Quota(transactions=2, transaction_nodes=4)),
        [
            ("1 start a", "1"),
            ("1.1 start b", "1"),
            ("1 start c", "ENOSPC"),
            ("2 start a", "1"),
            ("1.1/b abort", "-"),
            ("1 start c", "2"),
            ("1/c write x 1", "-"),  # x, and the home that lets us know
            ("1/c read y", "ENOENT"),
            ("1/c read z", "ENOENT"),
            ("1/c read x", "1"),
            ("1/c read more", "ENOSPC"),
            ("1/c write a/b/c", "ENOSPC"),
            ("1/c rm x", "-"),
            ("1/c commit", "-"),
            ("1 start c", "3"),
        ],
    )


def test_the_parents_that_are_made_and_the_nodes_that_go_with_one_count_too() -> None:
    play(
        Script(Quota(transaction_nodes=4)),
        [
            ("1 write a/b/c/d/e", "-"),
            ("1 start t", "1"),
            ("1/t rm a", "ENOSPC"),
            ("1/t read a/b/c/d/e", "''"),
            ("1 start u", "2"),
            ("1/u write z/y/x/w/v", "ENOSPC"),
            ("1 start v", "3"),
            ("1/v rm a/b/c", "-"),
            ("1/v commit", "-"),
        ],
    )


def test_domain_0_has_no_such_limits() -> None:
    script = Script(Quota(transactions=1, transaction_nodes=1))
    assert script.run("0 start t", "0 start u", "0/t write /a/b/c x", "0/t commit") == [
        "1", "2", "-", "-",
    ]  # fmt: skip


def test_nodes_are_counted_in_a_transaction_and_again_at_its_commit() -> None:
    play(
        Script(Quota(nodes=3)),
        [
            ("1 start t", "1"),
            ("1/t write a", "-"),
            ("1/t write b", "-"),
            ("1/t write c", "ENOSPC"),
            ("1/t rm b", "-"),
            ("1/t write c", "-"),
            ("1 write d", "-"),
            ("1/t commit", "ENOSPC"),
            ("1 ls /local/domain/1", "d"),
            ("1 start t", "2"),
            ("1/t write e", "-"),
            ("1/t commit", "-"),
            ("1 start t", "3"),
            ("1/t write d full", "-"),  # over its limit or not, it may change what it has
            ("0 write /local/domain/1/extra", "-"),
            ("1/t commit", "-"),
        ],
    )


def test_numbers_go_round_and_leave_out_what_is_open() -> None:
    store, caller = Store(), Caller(0)
    transactions = Transactions()
    subject = store.domains.subject(0)
    assert transactions.start(caller, subject, store._head) == 1
    transactions._next[caller] = 0xFFFFFFFF
    assert transactions.start(caller, subject, store._head) == 0xFFFFFFFF
    assert transactions.start(caller, subject, store._head) == 2


def test_nothing_is_kept_of_what_is_over() -> None:
    script = Script()
    script.run("1 start a", "1.1 start b", "1/a commit", "1 start c", "1 disconnect")
    script.run("1.1 reset", "1.1 disconnect", "2 start x", "0 release 2")
    transactions = script.store._transactions
    assert (transactions._open, transactions._counts, transactions._next) == ({}, {}, {})
