/* bad_sums: aggregates that each break one promise. All add up a column of ints, as long as they behave; `sums` does. Which promise
 * one breaks is its name. With -DLACKS the table of functions has no `merge`, and with -DORDERED `bind` wants the order of rows. */
#include "standpipe_plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum fault {
  SUMS, CRASHES, EXITS, SHORT, OVERLONG, OVERRUNS, TYPES, KEEPS, SCRIBBLES, REJECTS, FULL, EMPTY, CRAMPED, BATCHY, RANDOM,
  LASTS, FORGETS, LOSES, REMEMBERS, TRUSTS, HEADSTRONG, HOARDS, LEAKS, N_FAULTS
};
static const char *const names[N_FAULTS] = {
  "sums", "crashes", "exits", "short", "overlong", "overruns", "types", "keeps", "scribbles", "rejects", "full", "empty", "cramped",
  "batchy", "random", "lasts", "forgets", "loses", "remembers", "trusts", "headstrong", "hoards", "leaks"
};

typedef struct bound { enum fault fault; struct ArrowSchema field, *list[1]; } bound;
typedef struct instance { enum fault fault; uint32_t n; int64_t *sums; const int64_t *before; void *memory[100000]; int held; } instance;

static volatile int64_t sink, calls;
static void crash(void) { *(volatile int *)8 = 1; }
static void release_schema(struct ArrowSchema *s) { s->release = NULL; }

static enum fault fault_of(const sp_stage *s) {
  int i;
  for (i = 0; i < N_FAULTS && strcmp(names[i], s->name) != 0; i++) {}
  return (enum fault)i;
}

static void one_column(struct ArrowSchema *out, bound *b) {
  memset(out, 0, sizeof(*out));
  out->format = "+s";
  out->name = "";
  out->n_children = 1;
  out->children = b->list;
  out->release = release_schema;
}

static sp_status bind(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  bound *b = calloc(1, sizeof(*b));
  (void)h; (void)in; (void)e;
  if (!b) return SP_E_MEMORY;
  b->fault = fault_of(s);
  b->field.format = b->fault == TYPES ? "vu" : "l";
  b->field.name = "sum";
  b->field.release = release_schema;
  b->list[0] = &b->field;
  one_column(&out->schema, b);
  out->bound = b;
  out->flags = SP_F_DETERMINISTIC;
#ifdef ORDERED
  out->flags |= SP_F_NEEDS_ORDER;
#endif
  out->memory = SP_MEM_GROUPS;
  return SP_OK;
}

static sp_status state_schema(void *b, struct ArrowSchema *out, sp_error *e) {
  (void)e;
  ((bound *)b)->field.release = release_schema;
  one_column(out, b);
  return SP_OK;
}

static sp_status create(void *b, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  instance *i = calloc(1, sizeof(*i));
  (void)call; (void)split; (void)e;
  if (!i) return SP_E_MEMORY;
  i->fault = ((bound *)b)->fault;
  *inst = i;
  if (i->fault == LEAKS) sink = (int64_t)(size_t)malloc(10000);
  return SP_OK;
}

static void destroy(void *inst) {
  instance *i = inst;
  while (i->held > 0) free(i->memory[--i->held]);
  free(i->sums);
  free(i);
}

static sp_status room(void *inst, const sp_call *call, uint32_t n, const struct ArrowArray *args, sp_error *e) {
  instance *self = inst;
  int64_t *more;
  (void)args; (void)e;
  if (self->fault == FULL) return SP_E_MEMORY;
  if (self->fault == HEADSTRONG && call->host->reserve(call->owner, 1000) < 0) abort();
  if (self->fault == HEADSTRONG) call->host->reserve(call->owner, -1000);
  if (n <= self->n) return SP_OK;
  more = realloc(self->sums, n * sizeof(*more));
  if (!more) return SP_E_MEMORY;
  memset(more + self->n, 0, (n - self->n) * sizeof(*more));
  self->sums = more;
  self->n = n;
  return SP_OK;
}

static sp_status update(void *inst, const sp_call *call, const uint32_t *group, struct ArrowArray *args, sp_error *e) {
  instance *self = inst;
  const enum fault f = self->fault;
  const int64_t *from = args->children[0]->buffers[1];
  int64_t row;
  (void)e;
  if (f == CRASHES) crash();
  if (f == EXITS) exit(0);
  if (f == CRAMPED && args->length > 5000) crash();
  if (f == KEEPS) args->release = NULL; /* and never released */
  if (f == SCRIBBLES) ((int64_t *)from)[0] = 12345;
  if (f == HOARDS && self->held < 100000) memset(self->memory[self->held++] = malloc(5000), 1, 5000);
  if (f == REJECTS) {
    sp_str none = {NULL, 0};
    if (call->host->reject(call, 0, 0, none, none) < 0) return SP_E_CANCELLED;
  }
  for (row = 0; row < args->length; row++) {
    int64_t *sum = &self->sums[group[row]];
    *sum = (int64_t)((uint64_t)*sum + (uint64_t)from[row]);
    if (f == LASTS) *sum = from[row];
  }
  if (f == BATCHY) self->sums[group[0]]++;
  if (f == RANDOM) self->sums[group[0]] += calls++;
  if (f == REMEMBERS && !self->before) self->before = from;
  return SP_OK;
}

static sp_status merge(void *inst, const sp_call *call, const uint32_t *group, struct ArrowArray *states, sp_error *e) {
  instance *self = inst;
  const int64_t *from = states->children[0]->buffers[1];
  int64_t row;
  (void)call; (void)e;
  for (row = 0; row < states->length && self->fault != FORGETS; row++) {
    int64_t *sum = &self->sums[group[row]];
    *sum = (int64_t)((uint64_t)*sum + (uint64_t)from[row]);
    if (self->fault == LASTS && from[row] != 0) *sum = from[row];
  }
  return SP_OK;
}

static sp_status give(instance *self, const sp_call *call, uint32_t n, const uint32_t *groups, struct ArrowArray *out) {
  const enum fault f = self->fault;
  const sp_host *host = call->host;
  uint32_t i, length = f == SHORT ? n - 1 : n, written = f == OVERLONG ? n / 2 : n;
  int any = 0;
  int64_t *to = host->alloc(call, written * sizeof(*to));
  struct ArrowArray *child = host->alloc(call, sizeof(*child)), **list = host->alloc(call, sizeof(*list));
  const void **buffers = host->alloc(call, 3 * sizeof(*buffers));
  if (f == TRUSTS) memset(to, 0, n * sizeof(*to));
  if (!to || !child || !list || !buffers) return SP_E_MEMORY;
  for (i = 0; i < written; i++) {
    to[i] = self->sums[groups[i]];
    if (f == REMEMBERS && self->before) to[i] += *self->before;
    any |= to[i] != 0;
  }
  if (f == EMPTY && !any) crash();
  if (f == OVERRUNS) ((char *)to)[n * sizeof(*to)] = 1;
  buffers[0] = NULL;
  buffers[1] = to;
  buffers[2] = NULL;
  memset(child, 0, sizeof(*child));
  child->length = length;
  child->n_buffers = 2;
  child->buffers = buffers;
  child->release = host->arena_release;
  list[0] = child;
  memset(out, 0, sizeof(*out));
  out->length = length;
  out->n_buffers = 1;
  out->buffers = buffers + 2;
  out->n_children = 1;
  out->children = list;
  out->release = host->arena_release;
  return SP_OK;
}

static sp_status state(void *inst, const sp_call *call, uint32_t n, const uint32_t *groups, struct ArrowArray *out, sp_error *e) {
  sp_status status = give(inst, call, n, groups, out);
  (void)e;
  if (status == SP_OK && ((instance *)inst)->fault == LOSES) memset((void *)out->children[0]->buffers[1], 0, n * 8);
  return status;
}

static sp_status finalize(void *inst, const sp_call *call, uint32_t n, const uint32_t *groups, struct ArrowArray *out, sp_error *e) {
  (void)e;
  return give(inst, call, n, groups, out);
}

static void clear(void *inst) {
  instance *i = inst;
  i->n = 0;
}

static const sp_aggregate table = {
  sizeof(sp_aggregate), 0, 8, state_schema, room, room, update,
#ifdef LACKS
  NULL,
#else
  merge,
#endif
  state, finalize, clear
};

static const void *extension(const sp_stage *s, const char *id) {
  (void)s; (void)merge;
  return strcmp(id, "standpipe.aggregate/1") == 0 ? &table : NULL;
}

static sp_stage stages[N_FAULTS];
static const sp_stage *list[N_FAULTS];
static sp_plugin plugin = {sizeof(sp_plugin), SP_ABI_MAJOR, SP_ABI_MINOR, N_FAULTS, "test.bad_sums", "1.0.0", "", "", list, NULL, NULL, NULL};

SP_NOTE("{\"id\": \"test.bad_sums\", \"version\": \"1.0.0\", \"abi\": [1, 0], \"stages\": [{\"name\": \"sums\", \"kind\": \"aggregate\", "
        "\"examples\": [\"use plugin bad_sums\\nfrom range(1, 4) | aggregate s = bad_sums.sums(value)\"], \"prints\": [\"s\\n10\\n\"]}]}");

SP_EXPORT const sp_plugin *standpipe_plugin_entry_v1(void) {
  int i;
  for (i = 0; i < N_FAULTS; i++) {
    sp_stage s = {sizeof(sp_stage), SP_AGGREGATE, 0, 1, NULL, "1", "Adds up", NULL,
                  "{\"params\": [{\"name\": \"x\", \"type\": \"int\"}], \"columns\": 1, \"returns\": \"int\"}",
                  bind, free, create, NULL, NULL, NULL, NULL, destroy, extension};
    s.name = names[i];
    stages[i] = s;
    list[i] = &stages[i];
  }
  return &plugin;
}
