/* Loaded with LD_PRELOAD: a name with "hangs" in it takes longer to resolve than anybody waits. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

typedef int resolve_fn(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int
getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
            struct addrinfo **found)
{
    resolve_fn *resolve = (resolve_fn *)dlsym(RTLD_NEXT, "getaddrinfo");

    while (name && strstr(name, "hangs"))
        sleep(3600);
    return resolve(name, service, hints, found);
}
