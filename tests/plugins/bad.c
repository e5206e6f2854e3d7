/* bad: stages that each break one promise. All take a column of ints and give one column `y`, the same ints, as long as they behave.
 * Which promise a stage breaks is its name. */
#include "standpipe_plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum fault {
  CRASHES, HANGS, EXITS, KEEPS, SHORT, OVERLONG, OVERRUNS, NULLS, TYPES, SCRIBBLES, REJECTS, ROWS, ENDS,
  CARELESS, TAKES_ALL, MUTE, IMPURE, OLD, EMPTY, SINGLE, HOLLOW, CRAMPED, BATCHY, COUNTS, RANDOM, REMEMBERS, TRUSTS, FORGETS,
  HEADSTRONG, HOARDS, LEAKS, AMNESIC, N_FAULTS
};
static const char *const names[N_FAULTS] = {
  "crashes", "hangs", "exits", "keeps", "short", "overlong", "overruns", "nulls", "types", "scribbles", "rejects", "rows", "ends",
  "careless", "takes_all", "mute", "impure", "old", "empty", "single", "hollow", "cramped", "batchy", "counts", "random", "remembers",
  "trusts", "forgets", "headstrong", "hoards", "leaks", "amnesic"
};

typedef struct bound { enum fault fault; struct ArrowSchema field, *list[1]; int32_t used; } bound;
typedef struct instance { enum fault fault; int64_t count, *before; void *memory[100000]; int n; } instance;

static volatile int64_t sink, calls;
static void crash(void) { *(volatile int *)8 = 1; }
static void release_schema(struct ArrowSchema *s) { s->release = NULL; }

static enum fault fault_of(const sp_stage *s) {
  int i;
  for (i = 0; i < N_FAULTS && strcmp(names[i], s->name) != 0; i++) {}
  return (enum fault)i;
}

static int is_serial(enum fault f) { return f == REMEMBERS || f == FORGETS || f == HOARDS || f == AMNESIC || f == HEADSTRONG; }

static sp_status bind(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  static const char items[] = "\"items\":[{\"column\":";
  const struct ArrowSchema *input = in->inputs[0];
  enum fault f = fault_of(s);
  size_t at, n = sizeof(items) - 1;
  int64_t column = -1;
  bound *b;
  if (f == OLD && h->struct_size != sizeof(sp_host)) return SP_E_UNSUPPORTED;
  for (at = 0; at + n < in->config_json.len; at++)
    if (memcmp(in->config_json.ptr + at, items, n) == 0) column = strtol(in->config_json.ptr + at + n, NULL, 10);
  if (column < 0 && f == CARELESS) crash();
  if (column < 0 && f == TAKES_ALL) column = 0;
  else if (column < 0 || strcmp(input->children[column]->format, "l") != 0) {
    snprintf(e->param, sizeof(e->param), "%s", f == MUTE ? "" : "0");
    snprintf(e->message, sizeof(e->message), "%s", f == MUTE ? "no" : "an int is needed");
    return SP_E_SCHEMA;
  }
  b = calloc(1, sizeof(*b));
  if (!b) return SP_E_MEMORY;
  b->fault = f;
  b->field.format = f == TYPES ? "vu" : "l";
  b->field.name = "y";
  b->field.flags = f == NULLS ? 0 : ARROW_FLAG_NULLABLE;
  b->field.release = release_schema;
  b->list[0] = &b->field;
  b->used = (int32_t)column;
  out->schema.format = "+s";
  out->schema.name = "";
  out->schema.n_children = 1;
  out->schema.children = b->list;
  out->schema.release = release_schema;
  out->bound = b;
  out->flags = SP_F_DETERMINISTIC | (f == ROWS ? SP_F_ROW_OF : SP_F_ROW_ALIGNED) | (f == AMNESIC ? SP_F_SNAPSHOT : 0);
  if (f == IMPURE && calls++ % 2) out->flags |= SP_F_NEEDS_ORDER;
  out->parallelism = is_serial(f) ? SP_PAR_SERIAL : SP_PAR_STATELESS;
  out->memory = is_serial(f) ? SP_MEM_CONSTANT : SP_MEM_BATCH;
  out->used_columns = &b->used;
  out->n_used_columns = 1;
  return SP_OK;
}

static sp_status create(void *b, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  instance *i = calloc(1, sizeof(*i));
  (void)split; (void)e;
  if (!i) return SP_E_MEMORY;
  i->fault = ((bound *)b)->fault;
  *inst = i;
  if (i->fault == HEADSTRONG && call->host->reserve(call->owner, 1000) < 0) abort();
  if (i->fault == LEAKS) sink = (int64_t)(size_t)malloc(10000);
  return SP_OK;
}

static void destroy(void *inst) {
  instance *i = inst;
  while (i->n > 0) free(i->memory[--i->n]);
  free(i);
}

static sp_status process(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  const sp_host *host = call->host;
  instance *self = inst;
  const enum fault f = self->fault;
  const struct ArrowArray *x = in->children[0];
  const uint8_t *valid = x->buffers[0];
  const int64_t *from = x->buffers[1];
  int64_t i, rows = in->length, given = rows, nulls = x->null_count, *to;
  int columns = f == ROWS ? 2 : 1;
  struct ArrowArray *child, **list;
  const void **buffers;
  (void)e;
  if (f == CRASHES) crash();
  if (f == HANGS) for (;;) sink++;
  if (f == EXITS) exit(0);
  if (f == EMPTY && rows == 0) crash();
  if (f == SINGLE && rows == 1) crash();
  if (f == HOLLOW && rows > 0 && nulls == rows) crash();
  if (f == CRAMPED && rows > 5000) crash();
  if (f == ENDS) return SP_EOS;
  if (f == SCRIBBLES && rows > 0) ((int64_t *)from)[0] = 12345;
  if (f == FORGETS) self->count++; /* before there is memory: once more when the rows come again */
  if (f == SHORT && rows > 0) given = rows - 1;
  to = host->alloc(call, (size_t)(f == OVERLONG ? rows / 2 : rows) * 8);
  if (f == TRUSTS) memset(to, 0, (size_t)rows * 8);
  child = host->alloc(call, 2 * sizeof(*child));
  list = host->alloc(call, 2 * sizeof(*list));
  buffers = host->alloc(call, 5 * sizeof(*buffers));
  if (!to || !child || !list || !buffers) return SP_E_MEMORY;
  for (i = 0; i < (f == OVERLONG ? rows / 2 : rows); i++) {
    to[i] = from[i];
    if (valid && !(valid[i / 8] >> (i % 8) & 1)) continue;
    if (f == BATCHY) to[i] = i;
    if (f == COUNTS || f == AMNESIC) to[i] = self->count++;
    if (f == FORGETS) to[i] = self->count;
    if (f == RANDOM) to[i] = calls++;
    if (f == REMEMBERS) to[i] = self->before ? *self->before : 0;
  }
  if (f == OVERRUNS) ((char *)to)[(size_t)rows * 8] = 1;
  if (f == REMEMBERS && rows > 0 && !self->before) self->before = to;
  if (f == HOARDS && self->n < 100000) memset(self->memory[self->n++] = malloc(5000), 1, 5000);
  if (f == REJECTS && rows > 0) {
    sp_str none = {NULL, 0};
    if (host->reject(call, 0, 0, none, none) < 0) return SP_E_CANCELLED;
  }
  if (f == KEEPS) in->release = NULL; /* and never released */
  memset(child, 0, 2 * sizeof(*child));
  buffers[0] = valid;
  buffers[1] = to;
  buffers[2] = NULL;
  child[0].null_count = nulls;
  child[0].n_buffers = 2;
  child[0].buffers = buffers;
  if (f == ROWS) {
    int32_t *row_of = host->alloc(call, (size_t)rows * 4);
    if (!row_of) return SP_E_MEMORY;
    for (i = 0; i < rows; i++) row_of[i] = (int32_t)(rows - 1 - i);
    buffers[3] = NULL;
    buffers[4] = row_of;
    child[1].n_buffers = 2;
    child[1].buffers = buffers + 3;
  }
  for (i = 0; i < columns; i++) {
    child[i].length = given;
    child[i].release = host->arena_release;
    list[i] = &child[i];
  }
  memset(out, 0, sizeof(*out));
  out->length = given;
  out->n_buffers = 1;
  out->buffers = buffers + 2;
  out->n_children = columns;
  out->children = list;
  out->release = host->arena_release;
  return SP_OK;
}

static sp_status snapshot(void *inst, const sp_call *call, sp_write_fn write, void *to, sp_error *e) {
  (void)call; (void)e;
  return write(to, &((instance *)inst)->count, 8);
}

static sp_status restore(void *inst, const sp_call *call, uint32_t version, const void *p, size_t n, sp_error *e) {
  (void)inst; (void)call; (void)version; (void)p; (void)n; (void)e;
  return SP_OK; /* it forgets */
}

static sp_stage stages[N_FAULTS];
static const sp_stage *list[N_FAULTS];
static sp_plugin plugin = {sizeof(sp_plugin), SP_ABI_MAJOR, SP_ABI_MINOR, N_FAULTS, "test.bad", "1.0.0", "", "", list, NULL, NULL, NULL};

SP_NOTE("{\"id\": \"test.bad\", \"version\": \"1.0.0\", \"abi\": [1, 0], \"stages\": [{\"name\": \"nothing\", \"kind\": \"transform\"}]}");

SP_EXPORT const sp_plugin *standpipe_plugin_entry_v1(void) {
  int i;
  for (i = 0; i < N_FAULTS; i++) {
    sp_stage s = {sizeof(sp_stage), SP_TRANSFORM, 0, 1, NULL, "1", "Breaks a promise", NULL,
                  "{\"items\": {\"arg\": \"column\", \"min\": 1, \"about\": \"an int\"}, \"memory\": \"constant\"}",
                  bind, free, create, process, NULL, snapshot, restore, destroy, NULL};
    s.name = names[i];
    stages[i] = s;
    list[i] = &stages[i];
  }
  return &plugin;
}
