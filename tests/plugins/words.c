/* Functions and stages with arguments, for tests of the host:
 * double(x: int, times: int = 2)  fails for negative x: times is a constant;
 * repeat column: n                each row as often as column n says, at most `most:`; a bad count rejects the row;
 * count_up                        serial, tells no origin: a running number, and one more row at the end. */
#include "standpipe_plugin.h"
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

static void release_schema(struct ArrowSchema *s) { s->release = NULL; }
static void no_destroy(void *inst) { (void)inst; }

static void fail(sp_error *e, const char *param, const char *message) {
  snprintf(e->param, sizeof(e->param), "%s", param);
  snprintf(e->message, sizeof(e->message), "%s", message);
}

/* The number behind the first `key` in `json`; `none` if it is not there. */
static long number_of(sp_str json, const char *key, long none) {
  size_t i, n = strlen(key);
  for (i = 0; i + n < json.len; i++)
    if (memcmp(json.ptr + i, key, n) == 0) return strtol(json.ptr + i + n, NULL, 10);
  return none;
}

typedef struct bound {
  long times, column;
  int32_t *from, used;
  struct ArrowSchema *fields, **list;
} bound;

static void unbind(void *p) {
  bound *b = p;
  free(b->from);
  free(b->fields);
  free(b->list);
  free(b);
}

static sp_status create(void *b, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  (void)call; (void)split; (void)e;
  *inst = b;
  return SP_OK;
}

/* A struct array of n rows with room for `columns` children of two buffers. */
static int structure(const sp_call *call, struct ArrowArray *out, int64_t n, int columns) {
  struct ArrowArray *child = call->host->alloc(call, sizeof(*child) * (size_t)columns);
  struct ArrowArray **list = call->host->alloc(call, sizeof(*list) * (size_t)columns);
  const void **buffers = call->host->alloc(call, sizeof(*buffers) * (size_t)(1 + 2 * columns));
  int i;
  if (!child || !list || !buffers) return 0;
  memset(out, 0, sizeof(*out));
  out->length = n;
  out->n_buffers = 1;
  out->buffers = buffers;
  buffers[0] = NULL;
  out->n_children = columns;
  out->children = list;
  out->release = call->host->arena_release;
  for (i = 0; i < columns; i++) {
    memset(&child[i], 0, sizeof(child[i]));
    child[i].length = n;
    child[i].n_buffers = 2;
    child[i].buffers = buffers + 1 + 2 * i;
    child[i].buffers[0] = NULL;
    child[i].release = call->host->arena_release;
    list[i] = &child[i];
  }
  return 1;
}

/* -- double -- */

static sp_status bind_double(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  bound *b = calloc(1, sizeof(bound));
  (void)s; (void)h;
  b->times = number_of(in->config_json, "{\"value\":", -1);
  b->fields = calloc(1, sizeof(*b->fields));
  b->list = calloc(1, sizeof(*b->list));
  if (b->times < 0) {
    unbind(b);
    fail(e, "times", "must be a constant above zero");
    return SP_E_CONFIG;
  }
  b->fields[0].format = "l";
  b->fields[0].name = "";
  b->fields[0].release = release_schema;
  b->list[0] = b->fields;
  out->schema.format = "+s";
  out->schema.name = "";
  out->schema.n_children = 1;
  out->schema.children = b->list;
  out->schema.release = release_schema;
  out->bound = b;
  return SP_OK;
}

static sp_status process_double(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  const bound *b = inst;
  const struct ArrowArray *x = in->children[0];
  const uint8_t *valid = x->buffers[0];
  const int64_t *from = x->buffers[1];
  int64_t i, *to = call->host->alloc(call, (size_t)in->length * 8);
  (void)e;
  if (!to || !structure(call, out, in->length, 1)) return SP_E_MEMORY;
  for (i = 0; i < in->length; i++) {
    static const sp_str code = {"NEGATIVE", 8}, message = {"a number below zero", 19};
    to[i] = from[i] * b->times;
    if (from[i] < 0 && (!valid || (valid[i / 8] >> (i % 8) & 1))) {
      sp_status status = call->host->reject(call, i, 0, code, message);
      if (status < 0) { out->release = NULL; return status; }
    }
  }
  out->children[0]->buffers[1] = to;
  return SP_OK;
}

/* -- repeat -- */

static sp_status bind_repeat(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  const struct ArrowSchema *given = in->inputs[0];
  bound *b = calloc(1, sizeof(bound));
  int64_t i, n = in->n_own;
  (void)s; (void)h;
  b->column = number_of(in->config_json, "\"items\":[{\"column\":", -1);
  b->times = number_of(in->config_json, "\"most\":{\"value\":", 3);
  if (b->column < 0 || strcmp(given->children[b->column]->format, "l") != 0) {
    free(b);
    fail(e, "0", "a count is an int");
    return SP_E_SCHEMA;
  }
  if (b->times < 1) {
    free(b);
    fail(e, "most", "must be above zero");
    return SP_E_CONFIG;
  }
  b->used = (int32_t)b->column;
  b->from = malloc(sizeof(int32_t) * (size_t)(n + 1));
  b->fields = calloc((size_t)n + 1, sizeof(*b->fields));
  b->list = calloc((size_t)n + 1, sizeof(*b->list));
  for (i = 0; i <= n; i++) {
    b->from[i] = i == n ? -1 : (int32_t)i;
    if (i < n) b->fields[i] = *given->children[i];
    b->fields[i].release = release_schema;
    b->list[i] = &b->fields[i];
  }
  b->fields[n].format = "l";
  b->fields[n].name = "copy";
  out->schema = *given;
  out->schema.n_children = n + 1;
  out->schema.children = b->list;
  out->schema.release = release_schema;
  out->bound = b;
  out->flags = SP_F_ROW_OF | SP_F_REJECTS;
  out->parallelism = SP_PAR_STATELESS;
  out->used_columns = &b->used;
  out->n_used_columns = 1;
  out->from_columns = b->from;
  return SP_OK;
}

static sp_status process_repeat(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  const bound *b = inst;
  const int64_t *counts = in->children[0]->buffers[1];
  int64_t i, k, total = 0, at = 0, *copy;
  int32_t *row;
  (void)e;
  for (i = 0; i < in->length; i++) {
    static const sp_str code = {NULL, 0}, message = {"too many copies", 15};
    if (counts[i] > b->times) {
      sp_status status = call->host->reject(call, i, 0, code, message);
      if (status == SP_EOS) break;
      if (status < 0) return status;
    }
    total += counts[i];
  }
  copy = call->host->alloc(call, (size_t)total * 8);
  row = call->host->alloc(call, (size_t)total * 4);
  if (!copy || !row || !structure(call, out, total, 2)) return SP_E_MEMORY;
  for (i = 0; at < total; i++)
    for (k = 0; k < counts[i]; k++) {
      row[at] = (int32_t)i;
      copy[at++] = k;
    }
  out->children[0]->buffers[1] = copy;
  out->children[1]->buffers[1] = row;
  return SP_OK;
}

/* -- count_up -- */

static struct ArrowSchema number, *numbers[1] = {&number};

static sp_status bind_count(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  (void)s; (void)h; (void)in; (void)e;
  number.format = "l";
  number.name = "seen";
  number.release = release_schema;
  out->schema.format = "+s";
  out->schema.name = "";
  out->schema.n_children = 1;
  out->schema.children = numbers;
  out->schema.release = release_schema;
  out->parallelism = SP_PAR_SERIAL;
  return SP_OK;
}

typedef struct counter { int64_t rows; } counter;

static sp_status create_count(void *b, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  (void)b; (void)split; (void)e;
  *inst = calloc(1, sizeof(counter));
  return call->host->reserve(call->owner, 1000);
}

static sp_status give(const sp_call *call, struct ArrowArray *out, int64_t value) {
  int64_t *p = call->host->alloc(call, 8);
  if (!p || !structure(call, out, 1, 1)) return SP_E_MEMORY;
  *p = value;
  out->children[0]->buffers[1] = p;
  return SP_OK;
}

/* One row for each ten. */
static sp_status process_count(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  counter *c = inst;
  int64_t i;
  (void)e; (void)out;
  for (i = 0; i < in->length; i++) {
    struct ArrowArray one;
    if (++c->rows % 10 != 0) continue;
    if (give(call, &one, c->rows) != SP_OK || call->host->emit(call, &one) < 0) return SP_E_MEMORY;
  }
  return SP_OK;
}

static sp_status finish_count(void *inst, const sp_call *call, struct ArrowArray *out, sp_error *e) {
  (void)e;
  return give(call, out, -((counter *)inst)->rows);
}

static const sp_stage times = {
    sizeof(sp_stage), SP_SCALAR, SP_F_NULL_PROPAGATING | SP_F_REJECTS, 0, "double", "1.0.0", "A number, times another.", NULL,
    "{\"params\": [{\"name\": \"x\", \"type\": \"int\"}, {\"name\": \"times\", \"type\": \"int\", \"default\": \"2\"}]}",
    bind_double, unbind, create, process_double, NULL, NULL, NULL, no_destroy, NULL};
static const sp_stage repeat = {
    sizeof(sp_stage), SP_TRANSFORM, 0, 0, "repeat", "1.0.0", "Each row as often as a column says", NULL,
    "{\"items\": {\"arg\": \"expr\", \"min\": 1, \"about\": \"the count\"}, \"memory\": \"batch\", \"options\": [{\"name\": \"most\", "
    "\"arg\": \"const:int\", \"default\": \"3\", \"about\": \"the most copies\"}]}",
    bind_repeat, unbind, create, process_repeat, NULL, NULL, NULL, no_destroy, NULL};
static const sp_stage count_up = {
    sizeof(sp_stage), SP_TRANSFORM, 0, 0, "count_up", "1.0.0", "Counts rows by tens", NULL, "{\"memory\": \"constant\"}",
    bind_count, NULL, create_count, process_count, finish_count, NULL, NULL, free, NULL};
static const sp_stage *const stages[] = {&times, &repeat, &count_up};
static const sp_plugin plugin = {sizeof(sp_plugin), SP_ABI_MAJOR, SP_ABI_MINOR, 3, "test.words", "1.2.0",
                                 "Apache-2.0", "", stages, NULL, NULL, NULL};

SP_NOTE("{\"id\": \"test.words\", \"version\": \"1.2.0\", \"abi\": [1, 0], \"stages\": ["
        "{\"name\": \"double\", \"kind\": \"function\", \"about\": \"A number, times another.\", \"params\": "
        "{\"params\": [{\"name\": \"x\", \"type\": \"int\"}, {\"name\": \"times\", \"type\": \"int\", \"default\": \"2\"}]}},"
        "{\"name\": \"repeat\", \"kind\": \"transform\", \"about\": \"Each row as often as a column says\"},"
        "{\"name\": \"count_up\", \"kind\": \"transform\"}]}");

const sp_plugin *standpipe_plugin_entry_v1(void) { return &plugin; }
