// _dl_find_object(3) for static programs on musl. Debian's libgcc_eh.a is built for glibc and calls it to find the unwind
// table of an address; musl has dl_iterate_phdr(3), which tells the same.
#define _GNU_SOURCE
#include <link.h>
#include <stdint.h>
#include <string.h>

// As glibc's <dlfcn.h> declares it.
struct dl_find_object {
    unsigned long long flags;
    void *map_start, *map_end, *link_map, *eh_frame;
    unsigned long long reserved[7];
};

struct question {
    uintptr_t address;
    struct dl_find_object *answer;
};

static int contains(struct dl_phdr_info *object, size_t size, void *data) {
    struct question *question = data;
    uintptr_t table = 0, from = 0, to = 0;
    (void)size;
    for (const ElfW(Phdr) *part = object->dlpi_phdr, *end = part + object->dlpi_phnum; part < end; part++) {
        uintptr_t start = object->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_GNU_EH_FRAME)
            table = start;
        else if (part->p_type == PT_LOAD && question->address - start < part->p_memsz)
            from = start, to = start + part->p_memsz;
    }
    if (!to || !table)
        return 0;
    memset(question->answer, 0, sizeof *question->answer);
    question->answer->map_start = (void *)from;
    question->answer->map_end = (void *)to;
    question->answer->eh_frame = (void *)table;
    return 1;
}

int _dl_find_object(void *address, struct dl_find_object *answer) {
    struct question question = {(uintptr_t)address, answer};
    return dl_iterate_phdr(contains, &question) ? 0 : -1;
}
