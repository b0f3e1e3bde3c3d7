"""Side by side: processes of this machine that train folds or tag files, its cores divided among them."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

from fsat import interrupts, progress
from fsat.config import Config
from fsat.errors import FsatError, RunError
from fsat.models import n_threads

Item, Result = TypeVar("Item"), TypeVar("Result")

SAMPLES_WORTH_A_PROCESS = 1_000_000_000
"""A processor of 2023 trains conv1d on as many samples in a minute; a process takes ten seconds to start."""

STOP_SECONDS = 60.0
"""How long a process that was told to stop may take to close its run."""


@dataclass
class Worker:
    """A process and what it is doing.

    Attributes:
        process: trains one fold after the other.
        pipe: takes a fold's number; gives back the run's id, or the error in a line.
        fold: the one in work; None if it waits for one.
    """

    process: BaseProcess
    pipe: Connection
    fold: int | None = None


def cores() -> list[int]:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def train_side_by_side(train: Callable[[int], str], folds: Sequence[int], n_workers: int) -> dict[int, str]:
    """Train folds in processes of their own, each process on its share of the cores.

    An error in one fold lets the others that have begun finish, and then is raised. A signal, or an error here, stops
    them all.

    Args:
        train: trains a fold in a run of its own and returns the run's id; must be picklable.
        folds: numbers of the folds.
        n_workers: processes, at least 1.

    Returns:
        the run's id by fold.

    Raises:
        RunError: a fold failed, or its process died.
    """
    waiting, run_ids, errors = list(folds), {}, []
    workers = _start(train, min(n_workers, len(waiting)))
    try:
        while waiting or any(worker.fold is not None for worker in workers):
            for worker in workers:
                if worker.fold is None and waiting and not errors:
                    worker.fold = waiting.pop(0)
                    worker.pipe.send(worker.fold)
            busy = [worker for worker in workers if worker.fold is not None]
            if not busy:
                break  # an error has come, and all that had begun is done
            ready = wait([worker.pipe for worker in busy], timeout=0.5)
            interrupts.check()
            for worker in [worker for worker in busy if worker.pipe in ready]:
                fold, worker.fold = worker.fold, None
                run_id, error = _answer(worker)
                if error:
                    errors.append(f"fold {fold}: {error}")
                else:
                    run_ids[fold] = run_id
    finally:
        with interrupts.deferred():
            _stop(workers)
    if errors:
        more = f" ({len(errors) - 1} more failed)" if len(errors) > 1 else ""
        raise RunError(errors[0] + more)
    return run_ids


def _start(train: Callable[[int], str], count: int) -> list[Worker]:
    context = multiprocessing.get_context("spawn")  # TensorFlow does not live through a fork
    mine = cores()
    workers = []
    for i in range(count):
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(train, there, _share(mine, i, count)), name=f"folds-{i}")
        process.start()
        there.close()  # so that the pipe ends with the process
        workers.append(Worker(process, here))
    return workers


def _share(mine: list[int], i: int, count: int) -> list[int]:
    """The processors of the i-th of `count` processes."""
    return mine[i * len(mine) // count : (i + 1) * len(mine) // count] or [mine[i % len(mine)]]


def map_side_by_side(function: Callable[[Item], Result], items: Iterable[Item], n_workers: int) -> Iterator[Result]:
    """``map(function, items)`` in processes of their own, in order, each on its share of the cores.

    Args:
        function: must be picklable.
        items: taken as they are needed, two for each process.
        n_workers: processes, at least 1.

    Raises:
        FsatError: as `function` raises it.
        RunError: a process died.
    """
    context = multiprocessing.get_context("spawn")
    shares, mine = context.SimpleQueue(), cores()
    for i in range(n_workers):
        shares.put(_share(mine, i, n_workers))
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(n_workers, mp_context=context, initializer=_begin, initargs=(shares,))
    waiting: deque[Future] = deque()
    items, done = iter(items), False
    try:
        while True:
            for item in itertools.islice(items, 2 * n_workers - len(waiting)):
                waiting.append(pool.submit(function, item))
            if not waiting:
                done = True
                return
            try:
                result = waiting[0].result(timeout=0.5)
            except TimeoutError:
                interrupts.check()
                continue
            waiting.popleft()
            yield result
    except BrokenProcessPool as error:
        raise RunError("a process that tags died; if memory ran out, use workers=1, and give the command again, which "
                       "goes on from there") from error  # fmt: skip
    finally:
        with interrupts.deferred():
            for process in set(multiprocessing.active_children()) - others if not done else ():
                process.terminate()
            pool.shutdown(cancel_futures=True)


def _begin(shares: SimpleQueue) -> None:
    """What a process of `map_side_by_side` does first; it has nothing to close, and ends at once when it is told to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; who started this one says what is done
    interrupts.follow_parent()
    progress.output.plain = True
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, shares.get())


def _answer(worker: Worker) -> tuple[str, str]:
    """The run's id, or the error."""
    try:
        return worker.pipe.recv()
    except EOFError:
        worker.process.join(STOP_SECONDS)
        code = worker.process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        return "", f"its process {how}; if memory ran out, use a smaller batch_size or parallel_folds=1"


def _stop(workers: list[Worker]) -> None:
    """End the processes: those in work are told to stop and given time to close their runs."""
    for worker in workers:
        worker.pipe.close()
        if worker.fold is not None and worker.process.is_alive():
            worker.process.terminate()
    for worker in workers:
        worker.process.join(STOP_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _work(train: Callable[[int], str], pipe: Connection, share: list[int]) -> None:
    """What a process does: train the folds whose numbers come, until the pipe ends."""
    interrupts.install()
    interrupts.follow_parent()
    progress.output.plain = True
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)
    try:
        while True:
            fold = pipe.recv()
            try:
                pipe.send((train(fold), ""))
            except Exception as error:
                if os.environ.get("FSAT_DEBUG"):
                    traceback.print_exc()
                interrupts.check()
                what = str(error) if isinstance(error, FsatError) else f"{type(error).__name__}: {error}"
                pipe.send(("", " ".join(what.split())[:500]))
    except (EOFError, BrokenPipeError):
        return
    except KeyboardInterrupt:
        os._exit(128 + (interrupts.received() or signal.SIGINT))


def n_workers(parallel_folds: str, config: Config, n_folds: int, n_clips: int) -> int:
    """How many folds are trained at the same time.

    ``auto`` gives each fold the cores that its threads fill, so that a machine with fewer than twice those trains one
    fold after the other; and it starts no processes for less than about a minute's work. The benchmark `folds` compares
    two at a time with one.

    Args:
        parallel_folds: a number, or ``auto``.
        config: what is trained.
        n_folds: how many folds there are to train.
        n_clips: training clips of a fold.
    """
    if parallel_folds != "auto":
        return max(1, min(int(parallel_folds), n_folds))
    if n_clips * config.max_epochs * config.audio_length < SAMPLES_WORTH_A_PROCESS:
        return 1
    return max(1, min(len(cores()) // n_threads(), n_folds))
