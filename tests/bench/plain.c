/* plain: a stage that does nothing and a function that does next to nothing, to measure what the way there and back costs. */
#include "standpipe_plugin.h"
#include <stdlib.h>
#include <string.h>

static void release_schema(struct ArrowSchema *s) { s->release = NULL; }

static sp_status create(void *bound, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  (void)call; (void)split; (void)e;
  *inst = bound;
  return SP_OK;
}

static void destroy(void *inst) { (void)inst; }

/* -- plain.pass: every column as it is -- */

typedef struct plan { int32_t *from; struct ArrowSchema *fields, **list; } plan;

static void unbind(void *bound) {
  plan *p = bound;
  free(p->from);
  free(p->fields);
  free(p->list);
  free(p);
}

static sp_status bind_pass(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  static const int32_t none[1] = {0};
  size_t n = in->n_own, i;
  plan *p = calloc(1, sizeof(*p));
  (void)s; (void)h; (void)e;
  if (!p) return SP_E_MEMORY;
  p->from = calloc(n + 1, sizeof(*p->from));
  p->fields = calloc(n + 1, sizeof(*p->fields));
  p->list = calloc(n + 1, sizeof(*p->list));
  if (!p->from || !p->fields || !p->list) {
    unbind(p);
    return SP_E_MEMORY;
  }
  for (i = 0; i < n; i++) {
    p->from[i] = (int32_t)i;
    p->fields[i] = *in->inputs[0]->children[i];
    p->fields[i].release = release_schema;
    p->list[i] = &p->fields[i];
  }
  out->schema.format = "+s";
  out->schema.name = "";
  out->schema.n_children = (int64_t)n;
  out->schema.children = p->list;
  out->schema.release = release_schema;
  out->bound = p;
  out->flags = SP_F_ROW_ALIGNED | SP_F_PRESERVES_ORDER | SP_F_DETERMINISTIC;
  out->parallelism = SP_PAR_STATELESS;
  out->used_columns = none; /* of which it reads none */
  out->n_used_columns = 0;
  out->from_columns = p->from;
  return SP_OK;
}

static sp_status pass(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  const void **buffers = call->host->alloc(call, sizeof(*buffers));
  (void)inst; (void)e;
  if (!buffers) return SP_E_MEMORY;
  buffers[0] = NULL;
  memset(out, 0, sizeof(*out));
  out->length = in->length;
  out->n_buffers = 1;
  out->buffers = buffers;
  out->release = call->host->arena_release;
  return SP_OK;
}

/* -- plain.line(x, y): x * 1.5 + y -- */

static sp_status bind_line(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  plan *p = calloc(1, sizeof(*p));
  (void)s; (void)h; (void)in; (void)e;
  if (!p) return SP_E_MEMORY;
  p->fields = calloc(1, sizeof(*p->fields));
  p->list = calloc(1, sizeof(*p->list));
  if (!p->fields || !p->list) {
    unbind(p);
    return SP_E_MEMORY;
  }
  p->fields[0].format = "g";
  p->fields[0].name = "";
  p->fields[0].release = release_schema;
  p->list[0] = p->fields;
  out->schema.format = "+s";
  out->schema.name = "";
  out->schema.n_children = 1;
  out->schema.children = p->list;
  out->schema.release = release_schema;
  out->bound = p;
  return SP_OK;
}

static sp_status line(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  const sp_host *host = call->host;
  int64_t row, rows = in->length;
  const double *x = in->children[0]->buffers[1], *y = in->children[1]->buffers[1];
  double *to = host->alloc(call, (size_t)rows * 8);
  struct ArrowArray *column = host->alloc(call, sizeof(*column));
  struct ArrowArray **columns = host->alloc(call, sizeof(*columns));
  const void **buffers = host->alloc(call, 3 * sizeof(*buffers));
  (void)inst; (void)e;
  if (!to || !column || !columns || !buffers) return SP_E_MEMORY;
  for (row = 0; row < rows; row++) to[row] = x[row] * 1.5 + y[row];
  buffers[0] = buffers[2] = NULL;
  buffers[1] = to;
  memset(column, 0, sizeof(*column));
  column->length = rows;
  column->n_buffers = 2;
  column->buffers = buffers;
  column->release = host->arena_release;
  columns[0] = column;
  memset(out, 0, sizeof(*out));
  out->length = rows;
  out->n_buffers = 1;
  out->buffers = buffers + 2;
  out->n_children = 1;
  out->children = columns;
  out->release = host->arena_release;
  return SP_OK;
}

#define LINE "{\"params\": [{\"name\": \"x\", \"type\": \"float\"}, {\"name\": \"y\", \"type\": \"float\"}], \"returns\": \"float\"}"

static const sp_stage pass_stage = {
    sizeof(sp_stage), SP_TRANSFORM, 0, 0, "pass", "1.0.0", "Every row as it is", NULL, "{\"memory\": \"batch\"}",
    bind_pass, unbind, create, pass, NULL, NULL, NULL, destroy, NULL};
static const sp_stage line_stage = {
    sizeof(sp_stage), SP_SCALAR, SP_F_NULL_PROPAGATING | SP_F_DETERMINISTIC, 0, "line", "1.0.0", "x * 1.5 + y", NULL, LINE,
    bind_line, unbind, create, line, NULL, NULL, NULL, destroy, NULL};
static const sp_stage *const stages[] = {&pass_stage, &line_stage};
static const sp_plugin plugin = {
    sizeof(sp_plugin), SP_ABI_MAJOR, SP_ABI_MINOR, 2, "test.plain", "1.0.0", "Apache-2.0", "C", stages, NULL, NULL, NULL};

SP_NOTE("{\"id\": \"test.plain\", \"version\": \"1.0.0\", \"abi\": [1, 0], \"stages\": ["
        "{\"name\": \"pass\", \"kind\": \"transform\"}, {\"name\": \"line\", \"kind\": \"function\", \"params\": " LINE "}]}");

SP_EXPORT const sp_plugin *standpipe_plugin_entry_v1(void) { return &plugin; }
