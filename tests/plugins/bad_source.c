/* bad_source: sources that each break one promise. All have one column `n` of ints and three splits of 40 rows, 0 to 39, 1000 to
 * 1039 and 2000 to 2039, as long as they behave. Which promise a source breaks is its name; `fine` breaks none. */
#include "standpipe_plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum fault {
  FINE, CRASHES, HANGS, EXITS, CROWDS, OVERLONG, OVERRUNS, NULLS, TWICE, REJECTS, CARELESS, IMPURE, OLD, SHARED, BATCHY, RANDOM,
  REMEMBERS, TRUSTS, SKIPS, HEADSTRONG, HOARDS, LEAKS, AMNESIC, N_FAULTS
};
static const char *const names[N_FAULTS] = {
  "fine", "crashes", "hangs", "exits", "crowds", "overlong", "overruns", "nulls", "twice", "rejects", "careless", "impure", "old",
  "shared", "batchy", "random", "remembers", "trusts", "skips", "headstrong", "hoards", "leaks", "amnesic"
};
enum { SPLITS = 3, ROWS = 40 };

typedef struct bound { enum fault fault; struct ArrowSchema field, *list[1]; } bound;
typedef struct instance { enum fault fault; int64_t first, at, *before; void *memory[1000]; int n; } instance;

static volatile int64_t sink, calls, all;
static void crash(void) { *(volatile int *)8 = 1; }
static void release_schema(struct ArrowSchema *s) { s->release = NULL; }

static sp_status bind(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  enum fault f = FINE;
  size_t at;
  int given = 0;
  bound *b;
  while (strcmp(names[f], s->name) != 0) f++;
  if (in->n_inputs != 0) crash();
  if (f == OLD && h->struct_size != sizeof(sp_host)) return SP_E_UNSUPPORTED;
  for (at = 0; at + 3 < in->config_json.len; at++) given |= memcmp(in->config_json.ptr + at, "\"of\"", 4) == 0;
  if (!given && f != CARELESS) {
    snprintf(e->param, sizeof(e->param), "of");
    snprintf(e->message, sizeof(e->message), "`of` is missing");
    return SP_E_CONFIG;
  }
  b = calloc(1, sizeof(*b));
  if (!b) return SP_E_MEMORY;
  b->fault = f;
  b->field.format = "l";
  b->field.name = "n";
  b->field.release = release_schema;
  b->list[0] = &b->field;
  out->schema.format = "+s";
  out->schema.name = "";
  out->schema.n_children = 1;
  out->schema.children = b->list;
  out->schema.release = release_schema;
  out->bound = b;
  out->flags = SP_F_PRESERVES_ORDER | SP_F_DETERMINISTIC | SP_F_SNAPSHOT;
  out->parallelism = SP_PAR_SPLITS;
  out->n_splits = f == IMPURE && calls++ % 2 ? SPLITS + 1 : SPLITS;
  out->memory = SP_MEM_CONSTANT;
  return SP_OK;
}

static sp_status create(void *b, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  instance *i = calloc(1, sizeof(*i));
  (void)e;
  if (!i) return SP_E_MEMORY;
  i->fault = ((bound *)b)->fault;
  i->first = (int64_t)split * 1000;
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
  int64_t i, rows = ROWS - self->at, *to;
  struct ArrowArray *child, **list;
  const void **buffers;
  uint8_t *no_bits;
  (void)in; (void)e;
  if (f == CRASHES) crash();
  if (f == HANGS) for (;;) sink++;
  if (f == EXITS) exit(0);
  if (rows <= 0) return SP_EOS;
  if ((uint64_t)rows > call->max_rows && f != CROWDS) rows = (int64_t)call->max_rows;
  if (f == CROWDS) rows = 100;
  if (f == SKIPS) self->at += rows; /* before they are given: where memory is refused they are lost */
  to = host->alloc(call, (size_t)(f == OVERLONG ? rows / 2 : rows) * 8);
  if (f == TRUSTS) memset(to, 0, (size_t)rows * 8);
  child = host->alloc(call, sizeof(*child));
  list = host->alloc(call, sizeof(*list));
  buffers = host->alloc(call, 3 * sizeof(*buffers));
  no_bits = f == NULLS ? host->alloc(call, 64) : NULL;
  if (!to || !child || !list || !buffers || (f == NULLS && !no_bits)) return SP_E_MEMORY;
  if (no_bits) memset(no_bits, 0, 64);
  for (i = 0; i < (f == OVERLONG ? rows / 2 : rows); i++) {
    to[i] = self->first + self->at - (f == SKIPS ? rows : 0) + i;
    if (f == SHARED) to[i] = all++ % 1000000;
    if (f == BATCHY) to[i] = i;
    if (f == RANDOM) to[i] = self->first + calls++;
    if (f == REMEMBERS && self->before) to[i] = *self->before;
  }
  if (f == SHARED && self->first == 0 && self->at == 0) for (all = 0, i = 0; i < rows; i++) to[i] = all++;
  if (f == OVERRUNS) ((char *)to)[(size_t)rows * 8] = 1;
  if (f == REMEMBERS && !self->before) { /* behind what later calls take */
    if (!(self->before = host->alloc(call, 8))) return SP_E_MEMORY;
    *self->before = 7;
  }
  if (f == HOARDS && self->n < 1000) memset(self->memory[self->n++] = malloc(100000), 1, 100000);
  if (f == REJECTS) {
    sp_str none = {NULL, 0};
    if (host->reject(call, 0, 0, none, none) < 0) return SP_E_CANCELLED;
  }
  if (f != SKIPS) self->at += rows;
  memset(child, 0, sizeof(*child));
  memset(out, 0, sizeof(*out));
  buffers[0] = no_bits;
  buffers[1] = to;
  buffers[2] = NULL;
  child->length = out->length = rows;
  child->null_count = f == NULLS ? rows : 0;
  child->n_buffers = 2;
  child->buffers = buffers;
  child->release = out->release = host->arena_release;
  list[0] = child;
  out->n_buffers = 1;
  out->buffers = buffers + 2;
  out->n_children = 1;
  out->children = list;
  if (f == TWICE) {
    struct ArrowArray copy = *out;
    if (host->emit(call, &copy) < 0) return SP_E_CANCELLED;
    child->release = host->arena_release;
  }
  return SP_MORE;
}

static sp_status snapshot(void *inst, const sp_call *call, sp_write_fn write, void *to, sp_error *e) {
  (void)call; (void)e;
  return write(to, &((instance *)inst)->at, 8);
}

static sp_status restore(void *inst, const sp_call *call, uint32_t version, const void *p, size_t n, sp_error *e) {
  (void)call; (void)version; (void)e;
  if (n != 8) return SP_E_DATA;
  if (((instance *)inst)->fault != AMNESIC) memcpy(&((instance *)inst)->at, p, 8);
  return SP_OK;
}

static sp_stage stages[N_FAULTS];
static const sp_stage *list[N_FAULTS];
static sp_plugin plugin = {sizeof(sp_plugin), SP_ABI_MAJOR, SP_ABI_MINOR, N_FAULTS, "test.bad_source", "1.0.0", "", "", list, NULL, NULL, NULL};

SP_NOTE("{\"id\": \"test.bad_source\", \"version\": \"1.0.0\", \"abi\": [1, 0], \"stages\": [{\"name\": \"fine\", \"kind\": \"source\"}]}");

SP_EXPORT const sp_plugin *standpipe_plugin_entry_v1(void) {
  int i;
  for (i = 0; i < N_FAULTS; i++) {
    sp_stage s = {sizeof(sp_stage), SP_SOURCE, 0, 1, NULL, "1", "Breaks a promise", NULL,
                  "{\"options\": [{\"name\": \"of\", \"arg\": \"const:int\", \"required\": true, \"about\": \"any number\"}], \"memory\": \"constant\"}",
                  bind, free, create, process, NULL, snapshot, restore, destroy, NULL};
    s.name = names[i];
    stages[i] = s;
    list[i] = &stages[i];
  }
  return &plugin;
}
