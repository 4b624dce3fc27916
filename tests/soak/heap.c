/* Loaded into Postern with LD_PRELOAD: keeps in the first eight octets of the file that SOAK_HEAP
 * names how much of the heap is in use.  A leak shows there at once; what the process has of its
 * own contains the holes as well, and those come and go by half a mebibyte. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static void *
watch(void *arg)
{
    _Atomic uint64_t *in_use = arg;

    for (;;) {
        struct mallinfo2 info = mallinfo2();

        atomic_store(in_use, info.uordblks + info.hblkhd);
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    }
    return NULL;
}

__attribute__((constructor)) static void
begin(void)
{
    const char *path = getenv("SOAK_HEAP");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    sigset_t all, before;
    pthread_t thread;

    if (fd == -1)
        return;
    void *page = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED)
        return;
    /* Postern's signals are not for this thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    if (pthread_create(&thread, NULL, watch, page) == 0)
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
