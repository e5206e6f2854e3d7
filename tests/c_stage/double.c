/* doubled: the first column, an int, times two; rows where it is negative are rejected. All other columns are passed on.
 * doubled_in_order: the same, serially. */
#include "standpipe_plugin.h"
#include <stdlib.h>
#include <string.h>

typedef struct bound { int32_t used, *from; struct ArrowSchema *children, **list; } bound;

static void release_schema(struct ArrowSchema *s) { s->release = NULL; }

static sp_status bind_as(const sp_bind_in *in, sp_bind_out *out, sp_error *e, uint32_t parallelism) {
  const struct ArrowSchema *s = in->inputs[0];
  int64_t i;
  bound *b;
  if (s->n_children == 0 || strcmp(s->children[0]->format, "l") != 0) {
    strcpy(e->message, "the first column must be an int");
    return SP_E_SCHEMA;
  }
  /* The structs must be our own; their strings may be the input's. */
  b = calloc(1, sizeof(bound));
  b->from = malloc(sizeof(int32_t) * (size_t)s->n_children);
  b->children = calloc((size_t)s->n_children, sizeof(struct ArrowSchema));
  b->list = calloc((size_t)s->n_children, sizeof(void *));
  for (i = 0; i < s->n_children; i++) {
    b->from[i] = i == 0 ? -1 : (int32_t)i;
    b->children[i] = *s->children[i];
    b->children[i].release = release_schema;
    b->list[i] = &b->children[i];
  }
  out->schema = *s;
  out->schema.children = b->list;
  out->schema.release = release_schema;
  out->bound = b;
  out->flags = SP_F_ROW_ALIGNED | SP_F_REJECTS;
  out->parallelism = parallelism;
  out->used_columns = &b->used;
  out->n_used_columns = 1;
  out->from_columns = b->from;
  return SP_OK;
}

static sp_status bind(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  (void)s; (void)h;
  return bind_as(in, out, e, SP_PAR_STATELESS);
}

static sp_status bind_in_order(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  (void)s; (void)h;
  return bind_as(in, out, e, SP_PAR_SERIAL);
}

static void unbind(void *p) {
  bound *b = p;
  free(b->from);
  free(b->children);
  free(b->list);
  free(b);
}

static sp_status create(void *b, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  (void)call; (void)split; (void)e;
  *inst = b;
  return SP_OK;
}

static sp_status process(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  const struct ArrowArray *column = in->children[0];
  const uint8_t *valid = column->buffers[0];
  const int64_t *values = column->buffers[1];
  const sp_host *host = call->host;
  int64_t i, n = in->length;
  struct ArrowArray *child = host->alloc(call, sizeof(*child)), **children = host->alloc(call, sizeof(*children));
  const void **buffers = host->alloc(call, 3 * sizeof(*buffers));
  int64_t *doubled = host->alloc(call, (size_t)n * 8);
  (void)inst; (void)e;
  if (!child || !children || !buffers || !doubled) return SP_E_MEMORY;
  for (i = 0; i < n; i++) {
    int is_null = valid && !(valid[i / 8] >> (i % 8) & 1);
    doubled[i] = is_null ? 0 : 2 * values[i];
    if (!is_null && values[i] < 0) {
      static const sp_str code = {"NEGATIVE", 8}, message = {"a number below zero", 19};
      sp_status status = host->reject(call, i, 0, code, message);
      if (status == SP_EOS) { n = i; break; }
      if (status < 0) return status;
    }
  }
  buffers[0] = valid; /* lent input may be given on */
  buffers[1] = doubled;
  buffers[2] = NULL;
  *child = *column;
  child->length = n;
  child->null_count = -1;
  child->buffers = buffers;
  child->release = host->arena_release;
  child->private_data = NULL;
  children[0] = child;
  memset(out, 0, sizeof(*out));
  out->length = n;
  out->n_buffers = 1;
  out->buffers = buffers + 2;
  out->n_children = 1;
  out->children = children;
  out->release = host->arena_release;
  return SP_OK;
}

static void destroy(void *inst) { (void)inst; }

static const sp_stage doubled = {sizeof(sp_stage), SP_TRANSFORM, 0, 0, "doubled", "1.0.0", "Doubles the first column",
                                 NULL, NULL, bind, unbind, create, process, NULL, NULL, NULL, destroy, NULL};
static const sp_stage in_order = {sizeof(sp_stage), SP_TRANSFORM, 0, 0, "doubled_in_order", "1.0.0",
                                  "Doubles the first column", NULL, NULL, bind_in_order, unbind, create, process,
                                  NULL, NULL, NULL, destroy, NULL};
static const sp_stage *const stages[] = {&doubled, &in_order};
static const sp_plugin plugin = {sizeof(sp_plugin), SP_ABI_MAJOR, SP_ABI_MINOR, 2, "test.double", "1.0.0",
                                 "Apache-2.0", "", stages, NULL, NULL, NULL};

const sp_plugin *standpipe_plugin_entry_v1(void) { return &plugin; }
