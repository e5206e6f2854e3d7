/* bad_sink: sinks that each break one promise. All write a column of ints into a file, a line each, as long as they behave. Which
 * promise a sink breaks is its name; `fine` breaks none. */
#include "standpipe_plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum fault {
  FINE, CRASHES, EXITS, KEEPS, GIVES, REJECTS, CARELESS, IMPURE, OLD, EMPTY, HOLLOW, CRAMPED, BATCHY, RANDOM, REMEMBERS, FORGETS,
  HEADSTRONG, HOARDS, LEAKS, LITTERS, EAGER, EARLY, N_FAULTS
};
static const char *const names[N_FAULTS] = {
  "fine", "crashes", "exits", "keeps", "gives", "rejects", "careless", "impure", "old", "empty", "hollow", "cramped", "batchy", "random",
  "remembers", "forgets", "headstrong", "hoards", "leaks", "litters", "eager", "early"
};

typedef struct bound { enum fault fault; int32_t used; } bound;
typedef struct instance { enum fault fault; FILE *file; int64_t calls; const int64_t *before; void *memory[100000]; int n, named; } instance;

static volatile int64_t sink, calls;
static const char part[] = "out.part", name[] = "out";
static void crash(void) { *(volatile int *)8 = 1; }

static sp_status bind(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  static const char items[] = "\"items\":[{\"column\":";
  enum fault f = FINE;
  size_t at, n = sizeof(items) - 1;
  int64_t column = -1;
  bound *b;
  while (strcmp(names[f], s->name) != 0) f++;
  if (f == OLD && h->struct_size != sizeof(sp_host)) return SP_E_UNSUPPORTED;
  for (at = 0; at + n < in->config_json.len; at++)
    if (memcmp(in->config_json.ptr + at, items, n) == 0) column = strtol(in->config_json.ptr + at + n, NULL, 10);
  if (column < 0 && f == CARELESS) column = 0;
  else if (column < 0 || strcmp(in->inputs[0]->children[column]->format, "l") != 0) {
    snprintf(e->param, sizeof(e->param), "0");
    snprintf(e->message, sizeof(e->message), "an int is needed");
    return SP_E_SCHEMA;
  }
  b = calloc(1, sizeof(*b));
  if (!b) return SP_E_MEMORY;
  b->fault = f;
  b->used = (int32_t)column;
  out->bound = b;
  out->flags = SP_F_DETERMINISTIC | SP_F_NEEDS_ORDER;
  if (f == IMPURE && calls++ % 2) out->flags |= SP_F_BLOCKING;
  out->memory = SP_MEM_CONSTANT;
  out->used_columns = &b->used;
  out->n_used_columns = 1;
  return SP_OK;
}

static sp_status create(void *b, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  instance *i = calloc(1, sizeof(*i));
  (void)split; (void)e;
  if (!i) return SP_E_MEMORY;
  i->fault = ((bound *)b)->fault;
  i->file = fopen(i->fault == EAGER ? name : part, "w");
  if (!i->file) return free(i), SP_E_IO;
  *inst = i;
  if (i->fault == HEADSTRONG && call->host->reserve(call->owner, 1000) < 0) abort();
  if (i->fault == LEAKS) sink = (int64_t)(size_t)malloc(10000);
  return SP_OK;
}

static void destroy(void *inst) {
  instance *i = inst;
  while (i->n > 0) free(i->memory[--i->n]);
  if (i->file) fclose(i->file);
  if (!i->named && i->fault != LITTERS) remove(part);
  free(i);
}

static sp_status process(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  instance *self = inst;
  const enum fault f = self->fault;
  const struct ArrowArray *x = in->children[0];
  const uint8_t *valid = x->buffers[0];
  const int64_t *values = x->buffers[1];
  int64_t i, rows = in->length;
  (void)e;
  if (f == CRASHES) crash();
  if (f == EXITS) exit(0);
  if (f == EMPTY && rows == 0) crash();
  if (f == HOLLOW && rows > 0 && x->null_count == rows) crash();
  if (f == CRAMPED && rows > 5000) crash();
  if (f == BATCHY) fprintf(self->file, "batch\n");
  for (i = 0; i < rows; i++) {
    int64_t value = values[i];
    if (valid && !(valid[i / 8] >> (i % 8) & 1)) continue;
    if (f == RANDOM) value = calls++;
    if (f == REMEMBERS && self->before) value = *self->before;
    fprintf(self->file, "%lld\n", (long long)value);
  }
  if (f == REMEMBERS && rows > 0 && !self->before) self->before = values;
  if (f == FORGETS && !call->host->alloc(call, 8)) return SP_E_MEMORY; /* behind what it wrote: the rows come again */
  if (f == HOARDS && self->n < 100000) memset(self->memory[self->n++] = malloc(5000), 1, 5000);
  if (f == REJECTS && rows > 0) {
    sp_str none = {NULL, 0};
    if (call->host->reject(call, 0, 0, none, none) < 0) return SP_E_CANCELLED;
  }
  if (f == GIVES) {
    static const void *buffers[1];
    memset(out, 0, sizeof(*out));
    out->length = rows;
    out->n_buffers = 1;
    out->buffers = buffers;
    out->release = call->host->arena_release;
  }
  if (f == KEEPS) in->release = NULL; /* and never released */
  return SP_OK;
}

static sp_status publish(void *inst, const sp_call *call, sp_published *out, sp_error *e) {
  instance *self = inst;
  (void)call; (void)e;
  out->bytes = 0;
  self->named = 1;
  if (self->fault != EAGER && self->fault != EARLY) return rename(part, name) == 0 ? SP_OK : SP_E_IO;
  return SP_OK;
}

static sp_status finish(void *inst, const sp_call *call, struct ArrowArray *out, sp_error *e) {
  instance *self = inst;
  (void)call; (void)out; (void)e;
  fclose(self->file);
  self->file = NULL;
  if (self->fault == EARLY) rename(part, name);
  return SP_OK;
}

static const sp_sink publishes = {sizeof(sp_sink), 0, publish};
static const void *extension(const sp_stage *s, const char *id) {
  (void)s;
  return strcmp(id, "standpipe.sink/1") == 0 ? &publishes : NULL;
}

static sp_stage stages[N_FAULTS];
static const sp_stage *list[N_FAULTS];
static sp_plugin plugin = {sizeof(sp_plugin), SP_ABI_MAJOR, SP_ABI_MINOR, N_FAULTS, "test.bad_sink", "1.0.0", "", "", list, NULL, NULL, NULL};

SP_NOTE("{\"id\": \"test.bad_sink\", \"version\": \"1.0.0\", \"abi\": [1, 0], \"stages\": [{\"name\": \"fine\", \"kind\": \"sink\"}]}");

SP_EXPORT const sp_plugin *standpipe_plugin_entry_v1(void) {
  int i;
  for (i = 0; i < N_FAULTS; i++) {
    sp_stage s = {sizeof(sp_stage), SP_SINK, 0, 1, NULL, "1", "Breaks a promise", NULL,
                  "{\"items\": {\"arg\": \"column\", \"min\": 1, \"about\": \"an int\"}, \"memory\": \"constant\"}",
                  bind, free, create, process, finish, NULL, NULL, destroy, extension};
    s.name = names[i];
    stages[i] = s;
    list[i] = &stages[i];
  }
  return &plugin;
}
