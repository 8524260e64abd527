/* What an MPI library's calls take in the plainest loop: one line for each size, in microseconds.
   latency: half of there and back between the first process and the last; one_way: a message of 64 in flight;
   all_to_all: each process's bytes in equal parts. Medians of samples. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 64, SAMPLES = 200 };

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int process, processes, last;
static char *out, *in;

static void latency(int bytes) {
    if (process == 0) {
        MPI_Send(out, bytes, MPI_BYTE, last, 7, MPI_COMM_WORLD);
        MPI_Recv(in, bytes, MPI_BYTE, last, 7, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    } else if (process == last) {
        MPI_Recv(in, bytes, MPI_BYTE, 0, 7, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        MPI_Send(out, bytes, MPI_BYTE, 0, 7, MPI_COMM_WORLD);
    }
}

static void one_way(int bytes) {
    MPI_Request requests[WINDOW];
    int word = 0;
    if (process == 0) {
        for (int i = 0; i < WINDOW; i++)
            MPI_Isend(out + (size_t)i * bytes, bytes, MPI_BYTE, last, 7, MPI_COMM_WORLD, &requests[i]);
        MPI_Waitall(WINDOW, requests, MPI_STATUSES_IGNORE);
        MPI_Recv(&word, 4, MPI_BYTE, last, 7, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    } else if (process == last) {
        for (int i = 0; i < WINDOW; i++)
            MPI_Irecv(in + (size_t)i * bytes, bytes, MPI_BYTE, 0, 7, MPI_COMM_WORLD, &requests[i]);
        MPI_Waitall(WINDOW, requests, MPI_STATUSES_IGNORE);
        MPI_Send(&word, 4, MPI_BYTE, 0, 7, MPI_COMM_WORLD);
    }
}

static void all_to_all(int bytes) {
    int part = bytes / processes;
    MPI_Alltoall(out, part, MPI_BYTE, in, part, MPI_BYTE, MPI_COMM_WORLD);
}

/* The loop of `shardloom bench`: what is timed begins behind a barrier; between batches of samples, that double,
   what has come is overwritten and the processes tell each other their times. */
static void measure(const char *name, void (*once)(int), int bytes, int together, double share) {
    double mine[SAMPLES], samples[SAMPLES];
    for (int i = 0; i < 2 * together; i++) once(bytes);
    for (int begun = 0, batch = 1; begun < SAMPLES; begun += batch, batch = batch < 32 ? 2 * batch : 64) {
        if (batch > SAMPLES - begun) batch = SAMPLES - begun;
        for (int i = begun; i < begun + batch; i++) {
            MPI_Barrier(MPI_COMM_WORLD);
            double start = MPI_Wtime();
            for (int j = 0; j < together; j++) once(bytes);
            mine[i] = (MPI_Wtime() - start) * share / together;
        }
        memset(in, 2, bytes);
        MPI_Allreduce(mine + begun, samples + begun, batch, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    }
    qsort(samples, SAMPLES, sizeof *samples, by_size);
    if (process == 0) printf("%s %d %.4f\n", name, bytes, 1e6 * samples[SAMPLES / 2]);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &process);
    MPI_Comm_size(MPI_COMM_WORLD, &processes);
    last = processes - 1;
    for (int operation = 0; operation < 3; operation++) {
        for (int i = 1; i < argc; i++) {
            int bytes = atoi(argv[i]);
            size_t most = (size_t)bytes * (operation == 1 ? WINDOW : 1);
            if (posix_memalign((void **)&out, 4096, most) || posix_memalign((void **)&in, 4096, most)) return 1;
            memset(out, 1, most);
            memset(in, 2, most);
            if (operation == 0) measure("latency", latency, bytes, 1 + 400000 / (bytes + 4000), 0.5);
            if (operation == 1) measure("one_way", one_way, bytes, 1, 1.0 / WINDOW);
            if (operation == 2) measure("all_to_all", all_to_all, bytes, 1, 1.0);
            free(out);
            free(in);
        }
    }
    MPI_Finalize();
    return 0;
}
