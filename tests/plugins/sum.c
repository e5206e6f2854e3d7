/* A sink in C: `write sum.total "path", column` writes the sum of a column of ints into a file, at the end. It has no sp_sink: its
 * `finish` is what publishes. With an even sum of 1300 it fails there. */
#include "standpipe_plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct bound { char path[512]; int32_t used; } bound;
typedef struct instance { const bound *b; char path[1024]; int64_t sum; } instance;

/* The text behind `key`, up to the next quote. */
static int text(sp_str json, const char *key, char *to, size_t room) {
  size_t i, n = strlen(key), at = 0;
  for (i = 0; i + n < json.len; i++) {
    if (memcmp(json.ptr + i, key, n) != 0) continue;
    for (i += n; i < json.len && json.ptr[i] != '"' && at + 1 < room; i++) to[at++] = json.ptr[i];
    to[at] = 0;
    return 1;
  }
  return 0;
}

static sp_status bind(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  char digits[32];
  bound *b = calloc(1, sizeof(*b));
  (void)s; (void)h;
  if (!b) return SP_E_MEMORY;
  if (!text(in->config_json, "{\"value\":\"", b->path, sizeof(b->path)) ||
      !text(in->config_json, "{\"column\":", digits, sizeof(digits))) {
    free(b);
    snprintf(e->message, sizeof(e->message), "its `items` are a path and a column");
    return SP_E_CONFIG;
  }
  b->used = (int32_t)strtol(digits, NULL, 10);
  if (strcmp(in->inputs[0]->children[b->used]->format, "l") != 0) {
    free(b);
    snprintf(e->param, sizeof(e->param), "1");
    snprintf(e->message, sizeof(e->message), "an int is needed");
    return SP_E_SCHEMA;
  }
  out->bound = b;
  out->used_columns = &b->used;
  out->n_used_columns = 1;
  out->memory = SP_MEM_CONSTANT;
  return SP_OK;
}

static sp_status create(void *b, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  instance *i = calloc(1, sizeof(*i));
  (void)split; (void)e;
  if (!i) return SP_E_MEMORY;
  i->b = b;
  if (SP_HAS(call, sp_call, folder) && call->folder.len > 0 && i->b->path[0] != '/')
    snprintf(i->path, sizeof(i->path), "%.*s/%s", (int)call->folder.len, call->folder.ptr, i->b->path);
  else
    snprintf(i->path, sizeof(i->path), "%s", i->b->path);
  *inst = i;
  return SP_OK;
}

static sp_status process(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  instance *self = inst;
  const struct ArrowArray *x = in->children[0];
  const uint8_t *valid = x->buffers[0];
  const int64_t *values = x->buffers[1];
  int64_t i;
  (void)call; (void)out; (void)e;
  for (i = 0; i < x->length; i++)
    if (!valid || (valid[i / 8] >> (i % 8) & 1)) self->sum = (int64_t)((uint64_t)self->sum + (uint64_t)values[i]);
  return SP_OK;
}

static sp_status finish(void *inst, const sp_call *call, struct ArrowArray *out, sp_error *e) {
  instance *self = inst;
  FILE *file;
  (void)call; (void)out;
  if (self->sum == 1300) {
    snprintf(e->message, sizeof(e->message), "thirteen hundred is no sum");
    return SP_E_DATA;
  }
  file = fopen(self->path, "w");
  if (!file || fprintf(file, "%lld\n", (long long)self->sum) < 0 || fclose(file) != 0) {
    snprintf(e->message, sizeof(e->message), "cannot write `%s`", self->b->path);
    return SP_E_IO;
  }
  return SP_OK;
}

static const sp_stage total = {
    sizeof(sp_stage), SP_SINK, 0, 0, "total", "1.0.0", "Writes the sum of a column", NULL,
    "{\"memory\": \"constant\", \"items\": {\"arg\": [\"const:string\", \"column\"], \"min\": 2, \"max\": 2, "
    "\"about\": \"the file, the column\"}}",
    bind, free, create, process, finish, NULL, NULL, free, NULL};
static const sp_stage *const stages[] = {&total};
static const sp_plugin plugin = {sizeof(sp_plugin), SP_ABI_MAJOR, SP_ABI_MINOR, 1, "test.sum", "1.0.0",
                                 "Apache-2.0", "", stages, NULL, NULL, NULL};

SP_NOTE("{\"id\": \"test.sum\", \"version\": \"1.0.0\", \"abi\": [1, 0], \"stages\": ["
        "{\"name\": \"total\", \"kind\": \"sink\", \"about\": \"Writes the sum of a column\", \"params\": {}, \"examples\": ["
        "\"use plugin sum\\nfrom range(1, 3) | write sum.total \\\"sum.txt\\\", value\"]}]}");

const sp_plugin *standpipe_plugin_entry_v1(void) { return &plugin; }
