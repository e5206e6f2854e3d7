/* Stages that change nothing, in every way that the contract allows:
 * pass, pass_in_order  give the lent arrays back as they are;
 * pass_columns         say at bind that every column is passed on;
 * rebuild              copy everything into memory of the chunk, and give it in two arrays with offsets;
 * rebuild_in_order     the same, serially;
 * own_heap             copy everything into memory of their own. */
#include "standpipe_plugin.h"
#include <stdlib.h>
#include <string.h>

/* -- schemas -- */

static void release_schema(struct ArrowSchema *s) {
  int64_t i;
  for (i = 0; i < s->n_children; i++) {
    if (s->children[i]->release) s->children[i]->release(s->children[i]);
    free(s->children[i]);
  }
  free(s->children);
  free((void *)s->format);
  free((void *)s->name);
  free((void *)s->metadata);
  s->release = NULL;
}

static size_t metadata_size(const char *m) {
  int32_t pairs, len, i;
  size_t at = 4;
  memcpy(&pairs, m, 4);
  for (i = 0; i < 2 * pairs; i++) {
    memcpy(&len, m + at, 4);
    at += 4 + (size_t)len;
  }
  return at;
}

static void *duplicate(const void *p, size_t n) {
  void *copy = malloc(n ? n : 1);
  memcpy(copy, p, n);
  return copy;
}

static void copy_schema(const struct ArrowSchema *from, struct ArrowSchema *to) {
  int64_t i;
  *to = *from;
  to->format = duplicate(from->format, strlen(from->format) + 1);
  to->name = duplicate(from->name, strlen(from->name) + 1);
  to->metadata = from->metadata ? duplicate(from->metadata, metadata_size(from->metadata)) : NULL;
  to->children = malloc(sizeof(*to->children) * (size_t)(from->n_children + 1));
  for (i = 0; i < from->n_children; i++) {
    to->children[i] = malloc(sizeof(struct ArrowSchema));
    copy_schema(from->children[i], to->children[i]);
  }
  to->release = release_schema;
  to->private_data = NULL;
}

/* -- memory: the chunk's, or our own -- */

typedef struct block { struct block *next; void *unused; } block; /* 16 bytes, so that what follows is aligned */
typedef struct memory { const sp_call *call; block *blocks; int own; } memory;

static void *take(memory *m, size_t n) {
  block *b;
  if (!m->own) return m->call->host->alloc(m->call, n);
  b = malloc(sizeof(block) + n);
  b->next = m->blocks;
  m->blocks = b;
  return b + 1;
}

static void release_child(struct ArrowArray *a) { a->release = NULL; }

static void release_own(struct ArrowArray *a) {
  block *b = a->private_data;
  while (b) {
    block *next = b->next;
    free(b);
    b = next;
  }
  a->release = NULL;
}

static size_t width_of(const char *format) {
  switch (format[0]) {
  case 'l': case 'g': return 8;
  case 'd': case 'v': return 16;
  case 't': return strcmp(format, "tdD") == 0 ? 4 : 8;
  default: return 0;
  }
}

/* The same array in other memory; 0 = there is no room. */
static int copy_array(memory *m, const struct ArrowSchema *s, const struct ArrowArray *from, struct ArrowArray *to) {
  size_t n = (size_t)from->length, bits = (n + 7) / 8, buffers = (size_t)from->n_buffers, i;
  *to = *from;
  to->release = m->own ? release_child : m->call->host->arena_release;
  to->private_data = NULL;
  to->buffers = take(m, sizeof(void *) * (buffers + 1));
  to->children = take(m, sizeof(void *) * (size_t)(from->n_children + 1));
  if (!to->buffers || !to->children) return 0;
  for (i = 0; i < buffers; i++) {
    size_t size;
    void *copy;
    if (i == 0) size = from->buffers[0] ? bits : 0;
    else if (s->format[0] == 'v' && i == buffers - 1) size = 8 * (buffers - 3);
    else if (s->format[0] == 'v' && i > 1) size = (size_t)((const int64_t *)from->buffers[buffers - 1])[i - 2];
    else if (s->format[0] == 'b') size = bits;
    else if (s->format[0] == '+') size = 4 * (n + 1);
    else size = n * width_of(s->format);
    if (i == 0 && !from->buffers[0]) { to->buffers[0] = NULL; continue; }
    copy = take(m, size);
    if (!copy) return 0;
    if (size) memcpy(copy, from->buffers[i], size);
    to->buffers[i] = copy;
  }
  for (i = 0; i < (size_t)from->n_children; i++) {
    to->children[i] = take(m, sizeof(struct ArrowArray));
    if (!to->children[i] || !copy_array(m, s->children[i], from->children[i], to->children[i])) return 0;
  }
  return 1;
}

/* -- stages -- */

enum { PASS, COLUMNS, REBUILD, OWN };
typedef struct bound { struct ArrowSchema schema; int32_t *from, none; int how; } bound;

static sp_status bind_as(const sp_bind_in *in, sp_bind_out *out, int how, uint32_t parallelism) {
  bound *b = calloc(1, sizeof(bound));
  int32_t i, n = (int32_t)in->inputs[0]->n_children;
  copy_schema(in->inputs[0], &b->schema);
  copy_schema(in->inputs[0], &out->schema);
  b->how = how;
  out->bound = b;
  out->flags = SP_F_ROW_ALIGNED | SP_F_DETERMINISTIC | SP_F_PRESERVES_ORDER;
  out->parallelism = parallelism;
  if (how == COLUMNS) {
    b->from = malloc(sizeof(int32_t) * (size_t)(n + 1));
    for (i = 0; i < n; i++) b->from[i] = i;
    out->from_columns = b->from;
    out->used_columns = &b->none;
    out->n_used_columns = 0;
  }
  return SP_OK;
}

#define BIND(name, how, parallelism)                                                                           \
  static sp_status name(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) { \
    (void)s; (void)h; (void)e;                                                                                 \
    return bind_as(in, out, how, parallelism);                                                                 \
  }
BIND(bind_pass, PASS, SP_PAR_STATELESS)
BIND(bind_pass_in_order, PASS, SP_PAR_SERIAL)
BIND(bind_columns, COLUMNS, SP_PAR_STATELESS)
BIND(bind_rebuild, REBUILD, SP_PAR_STATELESS)
BIND(bind_rebuild_in_order, REBUILD, SP_PAR_SERIAL)
BIND(bind_own_heap, OWN, SP_PAR_STATELESS)

static void unbind(void *p) {
  bound *b = p;
  b->schema.release(&b->schema);
  free(b->from);
  free(b);
}

static sp_status create(void *b, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  (void)split; (void)e;
  *inst = b;
  if (call->host->alloc(call, 8) != NULL) return SP_E_INTERNAL; /* no chunk, no memory */
  return call->host->reserve(call->owner, 1000);
}

static sp_status process(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  bound *b = inst;
  memory m;
  struct ArrowArray half;
  int64_t first, i;
  sp_status status;
  (void)e;
  m.call = call;
  m.blocks = NULL;
  m.own = b->how == OWN;
  if (b->how == PASS || b->how == COLUMNS) {
    *out = *in;
    in->release = NULL;
    return SP_OK;
  }
  if (!copy_array(&m, &b->schema, in, out)) {
    out->release = NULL;
    return SP_E_MEMORY;
  }
  if (m.own) {
    out->release = release_own;
    out->private_data = m.blocks;
    return SP_OK;
  }
  /* The first half is the batch cut short; of the second one every column starts behind the first. */
  first = in->length / 2;
  half = *out;
  half.length = first;
  half.null_count = -1;
  out->release = NULL;
  status = call->host->emit(call, &half);
  if (status != SP_OK) return status;
  if (!copy_array(&m, &b->schema, in, out)) {
    out->release = NULL;
    return SP_E_MEMORY;
  }
  out->length -= first;
  for (i = 0; i < out->n_children; i++) {
    out->children[i]->length -= first;
    out->children[i]->offset = first;
    out->children[i]->null_count = b->schema.children[i]->format[0] == 'n' ? out->length : -1;
  }
  return SP_OK;
}

static void destroy(void *inst) { (void)inst; }

#define STAGE(name, bind)                                                                                        \
  {sizeof(sp_stage), SP_TRANSFORM, 0, 0, name, "1.0.0", "Changes nothing", NULL, NULL, bind, unbind, create, process, \
   NULL, NULL, NULL, destroy, NULL}
static const sp_stage stages[] = {
    STAGE("pass", bind_pass),       STAGE("pass_in_order", bind_pass_in_order),
    STAGE("pass_columns", bind_columns), STAGE("rebuild", bind_rebuild),
    STAGE("rebuild_in_order", bind_rebuild_in_order), STAGE("own_heap", bind_own_heap)};
static const sp_stage *const list[] = {&stages[0], &stages[1], &stages[2], &stages[3], &stages[4], &stages[5]};
static const sp_plugin plugin = {sizeof(sp_plugin), SP_ABI_MAJOR, SP_ABI_MINOR, 6, "test.noop", "1.0.0",
                                 "Apache-2.0", "", list, NULL, NULL, NULL};

const sp_plugin *standpipe_plugin_entry_v1(void) { return &plugin; }
