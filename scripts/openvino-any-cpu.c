/*
 * OpenVINO's plugin for ONNX Runtime 1.8.1 registers no device where ONNX Runtime says that the processor is of another
 * vendor than Intel (microsoft/onnxruntime#31981), although OpenVINO computes on any x86-64. This library lies beside the
 * plugin, loads it, and hands it ONNX Runtime's table of functions with one of them exchanged: the vendor of a processor
 * is always Intel. GPUs and NPUs are told as they are.
 *
 * scripts/setup-openvino builds it where the processor is of another vendor.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLUGIN "libonnxruntime_providers_openvino_plugin.so"

/* Places of functions in OrtApi, which only grows at its end, and as many as a plugin of ONNX Runtime 1.31 may know. */
enum { HARDWARE_DEVICE_TYPE = 307, HARDWARE_DEVICE_VENDOR_ID = 308, KNOWN = 428 };
enum { CPU = 0, INTEL = 0x8086 };

struct api_base {
    const void *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
};
typedef void *create_factories(const char *, const struct api_base *, const void *, void **, size_t, size_t *);
typedef void *release_factory(void *);

static const struct api_base *theirs;
static struct api_base ours;
static int (*type_of)(const void *device);
static uint32_t (*vendor_of)(const void *device);
static void *plugin;

static uint32_t vendor_id(const void *device) {
    return type_of(device) == CPU ? INTEL : vendor_of(device);
}

static const void *get_api(uint32_t version) {
    static void *table[KNOWN];
    void *const *api = theirs->get_api(version);
    if (api == NULL)
        return NULL;
    memcpy(table, api, sizeof table);
    type_of = (int (*)(const void *))api[HARDWARE_DEVICE_TYPE];
    vendor_of = (uint32_t (*)(const void *))api[HARDWARE_DEVICE_VENDOR_ID];
    table[HARDWARE_DEVICE_VENDOR_ID] = (void *)vendor_id;
    return table;
}

void *CreateEpFactories(const char *name, const struct api_base *base, const void *logger, void **factories, size_t most,
                        size_t *count) {
    Dl_info here;
    char path[PATH_MAX];
    theirs = base;
    ours = (struct api_base){get_api, base->get_version};
    dladdr((void *)CreateEpFactories, &here);
    const char *file = strrchr(here.dli_fname, '/');
    int folder = file == NULL ? 0 : (int)(file + 1 - here.dli_fname);
    snprintf(path, sizeof path, "%.*s%s", folder, here.dli_fname, PLUGIN);
    plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (plugin == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        abort();
    }
    return ((create_factories *)dlsym(plugin, "CreateEpFactories"))(name, &ours, logger, factories, most, count);
}

void *ReleaseEpFactory(void *factory) {
    return ((release_factory *)dlsym(plugin, "ReleaseEpFactory"))(factory);
}
