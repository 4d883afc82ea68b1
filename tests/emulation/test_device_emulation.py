"""The emulation finds what it is for: each kernel of self_test_kernels.cpp right, and with its rule broken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

SOURCE = torch.arange(1.0, 257.0)  # four blocks
SEEDS = range(4)


@pytest.fixture(autouse=True, params=SEEDS)
def seed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", str(request.param))
    return request.param


def assert_reported(kernel, variant: int, *words: str, source: Tensor = SOURCE) -> None:
    with pytest.raises(RuntimeError) as raised:
        kernel(source, variant)
    for word in words:
        assert word in str(raised.value)
    # A failed launch leaves nothing behind: the next one is as good as the first.
    kernel(source, 0)


def test_barriers_make_it_right(self_test):
    assert torch.equal(self_test.reverse(SOURCE, 0), SOURCE.view(-1, 64).flip(1).flatten())
    assert torch.equal(self_test.swap_in_warp(SOURCE, 0), SOURCE.view(-1, 2).flip(1).flatten())
    assert torch.equal(self_test.meet(SOURCE, 0), SOURCE)
    assert torch.equal(self_test.place(SOURCE, 0), SOURCE)


def test_a_missing_barrier_before_a_read(self_test):
    # Whichever comes first, the read of a word not yet written or the write of a word already read.
    with pytest.raises(RuntimeError, match="which no thread has set|race on word [0-9]+ of shared memory"):
        self_test.reverse(SOURCE, 1)


def test_a_missing_barrier_before_a_write(self_test):
    assert_reported(
        self_test.reverse,
        2,
        "kernel ",
        "Reverse, block ",
        "race on word ",
        "self_test_kernels.cpp:",
        "no barrier lies between",
    )


def test_the_same_value_by_all_threads_is_a_race(self_test):
    assert_reported(self_test.reverse, 3, "race on word 0 of shared memory", " writes it in ")


def test_a_warp_barrier_orders_one_warp_only(self_test):
    with pytest.raises(RuntimeError, match="which no thread has set|race on word"):
        self_test.swap_in_warp(SOURCE, 1)
    with pytest.raises(RuntimeError, match="which no thread has set|race on word"):
        self_test.swap_in_warp(SOURCE, 2)


def test_a_barrier_in_each_branch(self_test):
    assert_reported(self_test.meet, 1, "reached the block barrier in ", " waits at the block barrier in ")


def test_a_thread_that_ends_before_the_barrier(self_test):
    assert_reported(
        self_test.meet, 2, "deadlock", "threads 0-4, 6-63 at the block barrier", "thread 5 ended without it"
    )


def test_one_barrier_too_many_for_a_warp(self_test):
    assert_reported(self_test.meet, 3, "the block barrier in ")


def test_half_a_warp_shuffles(self_test):
    assert_reported(
        self_test.meet, 4, "deadlock", "threads 0-15, 32-47 at the shuffle", "threads 16-31, 48-63 at the block barrier"
    )


def test_half_a_warp_at_its_own_barrier(self_test):
    assert_reported(self_test.meet, 5, "deadlock", "threads 0-15, 32-47 at the warp barrier", "none has ended")


@pytest.mark.parametrize(
    "variant, report",
    [
        (1, "thread 63: index 64 of 64 elements of shared memory"),
        (2, "thread 0: index -1 of 64 elements of shared memory"),
        (3, "places bytes 0 to 260 in 256 bytes of shared memory"),
        (4, "places 8-byte elements at byte 4"),
        (5, "thread 7: reads word 7 of shared memory"),
        (6, "which no thread has set"),
    ],
)
def test_shared_memory_is_used_within_its_bounds_and_after_it_is_set(self_test, variant, report):
    assert_reported(self_test.place, variant, "Place, block ", report, "self_test_kernels.cpp:")


@pytest.mark.parametrize("variant", [1, 2])
def test_vectors_must_be_aligned(self_test, variant):
    assert torch.equal(self_test.copy_packs(SOURCE, 0), SOURCE)
    assert_reported(self_test.copy_packs, variant, "accesses 16 bytes at ", "which is not aligned")


def test_what_no_thread_writes_is_nan(self_test):
    target = self_test.copy_packs(SOURCE, 3)
    assert torch.equal(target[:-4], SOURCE[:-4])
    assert target[-4:].isnan().all()


def counter() -> Tensor:
    return torch.zeros(256)


def test_each_seed_has_its_order_and_keeps_it(self_test, seed, monkeypatch):
    places = self_test.order(counter(), 0)
    assert torch.equal(places.sort().values, torch.arange(256.0))
    assert not torch.equal(places, torch.arange(256.0))
    assert torch.equal(self_test.order(counter(), 0), places)
    monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", str(seed + 1))
    assert not torch.equal(self_test.order(counter(), 0), places)


def test_a_race_changes_the_result(self_test, monkeypatch):
    """In global memory no race is reported; under several seeds it shows."""
    results = []
    for seed in SEEDS:
        monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", str(seed))
        results.append(self_test.order(counter(), 2)[0].item())
    assert len(set(results)) > 1
    assert self_test.order(counter(), 1).max() < 255


def test_shuffles(self_test):
    by_warp = SOURCE.view(-1, 32)
    sums = by_warp.sum(1, keepdim=True).expand(-1, 32).flatten()
    assert torch.equal(self_test.shuffle(SOURCE, 0), 4 * sums)
    assert torch.equal(self_test.shuffle(SOURCE, 1), by_warp.cumsum(1).flatten())
    assert torch.equal(self_test.shuffle(SOURCE, 2), by_warp.flip(1).flatten())
    assert_reported(self_test.shuffle, 3, "shuffles from lane 32 in ")


def test_ballots(self_test):
    odd = SOURCE.view(-1, 32) % 2
    assert torch.equal(self_test.shuffle(SOURCE, 4), (odd.cumsum(1) - odd).flatten())
    assert_reported(self_test.shuffle, 5, "deadlock", " at the ballot in ", "ended without it")


def test_atomic_additions_in_shared_memory(self_test):
    assert torch.equal(
        self_test.add_to_shared(SOURCE, 0), SOURCE.view(-1, 64).sum(1, keepdim=True).expand(-1, 64).flatten()
    )
    assert_reported(self_test.add_to_shared, 1, "race on word 0 of shared memory")
    assert_reported(self_test.add_to_shared, 2, "adds to word 0 of shared memory", "which no thread has set")
    assert_reported(self_test.add_to_shared, 3, "race on word 0 of shared memory")
    assert_reported(self_test.add_to_shared, 4, "race on word 0 of shared memory")


def test_an_exception_reaches_the_caller(self_test):
    """As what it was, std::out_of_range; the threads that wait for the one that threw are given up."""
    with pytest.raises(IndexError, match="thread 37 has had enough"):
        self_test.throw_in_thread(SOURCE, 1)
    assert torch.equal(self_test.throw_in_thread(SOURCE, 0), SOURCE)
