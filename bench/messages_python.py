"""What MPI's calls take through mpi4py in the plainest loop: as messages.c, one line for each size, in microseconds."""

import statistics
import sys

from mpi4py import MPI

WINDOW, SAMPLES = 64, 200
world = MPI.COMM_WORLD
process, last = world.rank, world.size - 1


def latency(out, into):
    if process == 0:
        world.Send(out, last, 7)
        world.Recv(into, last, 7)
    elif process == last:
        world.Recv(into, 0, 7)
        world.Send(out, 0, 7)


def one_way(out, into):
    word = bytearray(4)
    if process == 0:
        MPI.Request.Waitall([world.Isend(out[number], last, 7) for number in range(WINDOW)])
        world.Recv(word, last, 7)
    elif process == last:
        MPI.Request.Waitall([world.Irecv(into[number], 0, 7) for number in range(WINDOW)])
        world.Send(word, 0, 7)


def all_to_all(out, into):
    world.Alltoall(out, into)


def measure(name, once, size, together, share, buffers):
    for _ in range(2 * together):
        once(*buffers)
    samples = []
    for _ in range(SAMPLES):
        world.Barrier()
        start = MPI.Wtime()
        for _ in range(together):
            once(*buffers)
        samples.append(world.allreduce(MPI.Wtime() - start, op=MPI.MAX) * share / together)
    if process == 0:
        print(name, size, f"{1e6 * statistics.median(samples):.4f}")


sizes = list(map(int, sys.argv[1:]))
for size in sizes:
    buffers = (bytearray(size), bytearray(size))
    measure("latency", latency, size, 1 + 400000 // (size + 4000), 0.5, buffers)
for size in sizes:
    buffers = [[bytearray(size) for _ in range(WINDOW)] for _ in range(2)]
    measure("one_way", one_way, size, 1, 1 / WINDOW, buffers)
for size in sizes:
    whole = size // world.size * world.size
    buffers = (bytearray(whole), bytearray(whole))
    measure("all_to_all", all_to_all, size, 1, 1.0, buffers)
