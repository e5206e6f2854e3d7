/* words: a Standpipe plugin in C.
 *
 * words.count(text)    how many words a text has; a word is what stands between blanks.
 * words.split text     one row per word, in order: adds `word`, and `at`, its number from 1. Rows without a word go.
 *
 * No text is copied: the words are views into the buffers of the lent column. */
#include "standpipe_plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- errors, texts, memory -- */

static void say(sp_error *e, const char *param, const char *message) {
  snprintf(e->param, sizeof(e->param), "%s", param);
  snprintf(e->message, sizeof(e->message), "%s", message);
}

/* A text of up to 12 bytes stands in its view, a longer one in a buffer. */
typedef struct view {
  int32_t len;
  union {
    char bytes[12];
    struct { char prefix[4]; int32_t buffer, offset; } there;
  } u;
} view;

static const char *bytes_of(const struct ArrowArray *column, const view *v) {
  if (v->len <= 12) return v->u.bytes;
  return (const char *)column->buffers[2 + v->u.there.buffer] + v->u.there.offset;
}

static int is_null(const struct ArrowArray *column, int64_t row) {
  const uint8_t *valid = column->buffers[0];
  return valid != NULL && !(valid[row / 8] >> (row % 8) & 1);
}

static int is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The next word of a text from `*at` on: its length, 0 at the end; `*at` is then its start. */
static int32_t next_word(const char *text, int32_t len, int32_t *at) {
  int32_t end;
  while (*at < len && is_blank(text[*at])) ++*at;
  for (end = *at; end < len && !is_blank(text[end]); end++) {}
  return end - *at;
}

/* A struct array of the chunk's memory. The children are zeroed but for their length. */
static int structure(const sp_call *call, struct ArrowArray *out, int64_t rows, int columns) {
  const sp_host *host = call->host;
  struct ArrowArray *children = host->alloc(call, sizeof(*children) * (size_t)columns);
  struct ArrowArray **list = host->alloc(call, sizeof(*list) * (size_t)columns);
  const void **buffers = host->alloc(call, sizeof(*buffers));
  int i;
  if (!children || !list || !buffers) return 0;
  memset(out, 0, sizeof(*out));
  memset(children, 0, sizeof(*children) * (size_t)columns);
  buffers[0] = NULL;
  out->length = rows;
  out->n_buffers = 1;
  out->buffers = buffers;
  out->n_children = columns;
  out->children = list;
  out->release = host->arena_release;
  for (i = 0; i < columns; i++) {
    children[i].length = rows;
    children[i].release = host->arena_release;
    list[i] = &children[i];
  }
  return 1;
}

/* Gives a child its values; NULL if there is no room. */
static void *values(const sp_call *call, struct ArrowArray *child, size_t size) {
  const void **buffers = call->host->alloc(call, 2 * sizeof(*buffers));
  void *memory = call->host->alloc(call, size);
  if (!buffers || !memory) return NULL;
  buffers[0] = NULL;
  buffers[1] = memory;
  child->n_buffers = 2;
  child->buffers = buffers;
  return memory;
}

/* -- what both have in common -- */

typedef struct plan {
  int32_t text, *from;
  struct ArrowSchema *fields, **list;
} plan;

static void unbind(void *bound) {
  plan *p = bound;
  free(p->from);
  free(p->fields);
  free(p->list);
  free(p);
}

static void release_schema(struct ArrowSchema *s) { s->release = NULL; }

/* A plan whose output has `n` columns; NULL if there is no memory. */
static plan *new_plan(int64_t n, sp_bind_out *out) {
  plan *p = calloc(1, sizeof(plan));
  int64_t i;
  if (!p) return NULL;
  p->from = calloc((size_t)n, sizeof(*p->from));
  p->fields = calloc((size_t)n, sizeof(*p->fields));
  p->list = calloc((size_t)n, sizeof(*p->list));
  if (!p->from || !p->fields || !p->list) {
    unbind(p);
    return NULL;
  }
  for (i = 0; i < n; i++) {
    p->from[i] = -1;
    p->fields[i].format = "l";
    p->fields[i].name = "";
    p->fields[i].release = release_schema;
    p->list[i] = &p->fields[i];
  }
  out->schema.format = "+s";
  out->schema.name = "";
  out->schema.n_children = n;
  out->schema.children = p->list;
  out->schema.release = release_schema;
  out->bound = p;
  return p;
}

static sp_status create(void *bound, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  (void)call; (void)split; (void)e;
  *inst = bound; /* neither has a state */
  return SP_OK;
}

static void destroy(void *inst) { (void)inst; }

/* -- words.count -- */

static sp_status bind_count(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  (void)s; (void)h; (void)in; (void)e;
  return new_plan(1, out) ? SP_OK : SP_E_MEMORY;
}

static sp_status count(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  const struct ArrowArray *column = in->children[0];
  const view *views = column->buffers[1];
  int64_t row, *counts;
  (void)inst; (void)e;
  if (!structure(call, out, in->length, 1) || !(counts = values(call, out->children[0], (size_t)in->length * 8))) {
    out->release = NULL;
    return SP_E_MEMORY;
  }
  for (row = 0; row < in->length; row++) {
    const char *text = bytes_of(column, &views[row]);
    int32_t at = 0, len;
    counts[row] = 0;
    if (is_null(column, row)) continue; /* the host makes it null */
    while ((len = next_word(text, views[row].len, &at)) > 0) {
      counts[row]++;
      at += len;
    }
  }
  return SP_OK;
}

/* -- words.split -- */

static sp_status bind_split(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  static const char items[] = "\"items\":[{\"column\":";
  const struct ArrowSchema *input = in->inputs[0];
  int64_t i, own = in->n_own, column = -1;
  size_t at, n = sizeof(items) - 1;
  plan *p;
  (void)s; (void)h;
  for (at = 0; at + n < in->config_json.len; at++)
    if (memcmp(in->config_json.ptr + at, items, n) == 0) column = strtol(in->config_json.ptr + at + n, NULL, 10);
  if (column < 0 || column >= input->n_children || strcmp(input->children[column]->format, "vu") != 0) {
    say(e, "0", "only text has words");
    return SP_E_SCHEMA;
  }
  for (i = 0; i < own; i++)
    if (strcmp(input->children[i]->name, "word") == 0 || strcmp(input->children[i]->name, "at") == 0) {
      say(e, "", "it adds `word` and `at`, and there is such a column already: `rename` it before");
      return SP_E_SCHEMA;
    }
  if (!(p = new_plan(own + 2, out))) return SP_E_MEMORY;
  for (i = 0; i < own; i++) {
    p->fields[i] = *input->children[i]; /* its strings may be the input's */
    p->fields[i].release = release_schema;
    p->from[i] = (int32_t)i;
  }
  p->fields[own].format = "vu";
  p->fields[own].name = "word";
  p->fields[own + 1].name = "at";
  p->text = (int32_t)column;
  out->flags = SP_F_ROW_OF | SP_F_PRESERVES_ORDER | SP_F_DETERMINISTIC;
  out->parallelism = SP_PAR_STATELESS;
  out->memory = SP_MEM_BATCH;
  out->used_columns = &p->text;
  out->n_used_columns = 1;
  out->from_columns = p->from;
  return SP_OK;
}

static sp_status split(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  const struct ArrowArray *column = in->children[0];
  const view *views = column->buffers[1];
  int64_t row, rows = 0, next = 0, *numbers;
  int32_t at, len, *row_of;
  struct ArrowArray *words;
  view *made;
  (void)inst; (void)e;
  for (row = 0; row < in->length; row++) {
    const char *text = bytes_of(column, &views[row]);
    if (is_null(column, row)) continue;
    for (at = 0; (len = next_word(text, views[row].len, &at)) > 0; at += len) rows++;
  }
  made = call->host->alloc(call, (size_t)rows * sizeof(view));
  if (!made || !structure(call, out, rows, 3)) return SP_E_MEMORY;
  numbers = values(call, out->children[1], (size_t)rows * 8);
  row_of = values(call, out->children[2], (size_t)rows * 4);
  /* The words' column has the buffers of the texts', but for the views. */
  words = out->children[0];
  words->n_buffers = column->n_buffers;
  words->buffers = call->host->alloc(call, sizeof(void *) * (size_t)column->n_buffers);
  if (!numbers || !row_of || !words->buffers) {
    out->release = NULL;
    return SP_E_MEMORY;
  }
  memcpy(words->buffers, column->buffers, sizeof(void *) * (size_t)column->n_buffers);
  words->buffers[0] = NULL;
  words->buffers[1] = made;
  for (row = 0; row < in->length; row++) {
    const view *from = &views[row];
    const char *text = bytes_of(column, from);
    int64_t number = 0;
    if (is_null(column, row)) continue;
    for (at = 0; (len = next_word(text, from->len, &at)) > 0; at += len) {
      view *to = &made[next];
      memset(to, 0, sizeof(*to));
      to->len = len;
      if (len <= 12) {
        memcpy(to->u.bytes, text + at, (size_t)len);
      } else {
        memcpy(to->u.there.prefix, text + at, 4);
        to->u.there.buffer = from->u.there.buffer;
        to->u.there.offset = from->u.there.offset + at;
      }
      numbers[next] = ++number;
      row_of[next++] = (int32_t)row;
    }
  }
  return SP_OK;
}

/* -- the tables -- */

#define COUNT_ABOUT "How many words a text has"
#define COUNT_PARAMS "{\"params\": [{\"name\": \"text\", \"type\": \"string\"}], \"returns\": \"int\"}"
#define SPLIT_ABOUT "One row per word of a text, which it adds as `word`, with `at`, its number"
#define SPLIT_PARAMS "{\"items\": {\"arg\": \"column\", \"min\": 1, \"about\": \"the column with the text\"}, \"memory\": \"batch\"}"

static const sp_stage count_stage = {
    sizeof(sp_stage), SP_SCALAR, SP_F_NULL_PROPAGATING | SP_F_DETERMINISTIC, 0, "count", "1.0.0", COUNT_ABOUT, NULL, COUNT_PARAMS,
    bind_count, unbind, create, count, NULL, NULL, NULL, destroy, NULL};
static const sp_stage split_stage = {
    sizeof(sp_stage), SP_TRANSFORM, 0, 0, "split", "1.0.0", SPLIT_ABOUT, NULL, SPLIT_PARAMS,
    bind_split, unbind, create, split, NULL, NULL, NULL, destroy, NULL};
static const sp_stage *const stages[] = {&count_stage, &split_stage};
static const sp_plugin plugin = {
    sizeof(sp_plugin), SP_ABI_MAJOR, SP_ABI_MINOR, 2, "org.standpipe.words", "1.0.0", "Apache-2.0", "C", stages, NULL, NULL, NULL};

SP_NOTE("{\"id\": \"org.standpipe.words\", \"version\": \"1.0.0\", \"abi\": [1, 0], \"license\": \"Apache-2.0\", \"stages\": ["
        "{\"name\": \"count\", \"kind\": \"function\", \"about\": \"" COUNT_ABOUT "\", \"params\": " COUNT_PARAMS ", "
        "\"examples\": [\"words.count(\\\"to be or not\\\") == 4\"]}, "
        "{\"name\": \"split\", \"kind\": \"transform\", \"about\": \"" SPLIT_ABOUT "\", \"params\": " SPLIT_PARAMS ", "
        "\"examples\": [\"use plugin words from rows [{text: \\\"to be\\\"}] | words.split text\"], "
        "\"prints\": [\"text,word,at\\nto be,to,1\\nto be,be,2\\n\"]}]}");

SP_EXPORT const sp_plugin *standpipe_plugin_entry_v1(void) { return &plugin; }
