/* Stages that break the contract, each in its own way; all take an int and a string column. */
#include "standpipe_plugin.h"
#include <stdlib.h>
#include <string.h>

enum {
  LONGER, SHORTER, NULL_BUFFER, NULL_LIST, WRONG_TYPE, ONE_COLUMN, NULL_CHILD, RELEASED_CHILD, NEGATIVE, BAD_UTF8, OUTSIDE,
  BAD_PREFIX, NO_SIZES, FALSE_NULLS, NULLS, KEEPS, LATE_REJECT, SILENT_REJECT, FAR_REJECT, STALE_CALL, ENDS, FAILS, MUTE,
  POISONED, NO_MEMORY, HUGE, KINDS
};
static const char *const names[KINDS] = {
  "longer", "shorter", "null_buffer", "null_list", "wrong_type", "one_column", "null_child", "released_child", "negative",
  "bad_utf8", "outside", "bad_prefix", "no_sizes", "false_nulls", "nulls", "keeps", "late_reject", "silent_reject",
  "far_reject", "stale_call", "ends", "fails", "mute", "poisoned", "no_memory", "huge"};
static sp_stage stages[KINDS];
static const sp_stage *list[KINDS];
static int kinds[KINDS];

static struct ArrowSchema columns[2], *children[2] = {&columns[0], &columns[1]};
static void release_schema(struct ArrowSchema *s) { s->release = NULL; }

static sp_status bind(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  int i;
  int *kind = &kinds[s - stages];
  (void)h; (void)in; (void)e;
  *kind = (int)(s - stages);
  for (i = 0; i < 2; i++) {
    columns[i].format = i ? "vu" : "l";
    columns[i].name = i ? "s" : "n";
    columns[i].release = release_schema;
  }
  out->schema.format = "+s";
  out->schema.name = "";
  out->schema.n_children = 2;
  out->schema.children = children;
  out->schema.release = release_schema;
  out->bound = kind;
  out->flags = SP_F_ROW_ALIGNED | (*kind == SILENT_REJECT ? 0 : SP_F_REJECTS);
  out->parallelism = SP_PAR_STATELESS;
  return SP_OK;
}

static sp_status create(void *b, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  (void)call; (void)split; (void)e;
  *inst = b;
  return SP_OK;
}

static void *zeros(const sp_call *call, size_t n) {
  void *p = call->host->alloc(call, n);
  return memset(p, 0, n);
}

static struct ArrowArray *column(const sp_call *call, int64_t n, int buffers) {
  struct ArrowArray *a = zeros(call, sizeof(*a));
  a->length = n;
  a->n_buffers = buffers;
  a->buffers = zeros(call, 64);
  a->release = call->host->arena_release;
  return a;
}

static struct ArrowArray kept;
static const sp_call *old_call;

static sp_status process(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  int kind = *(int *)inst;
  const sp_host *host = call->host;
  static const sp_str none = {NULL, 0}, about = {"about to fail", 13};
  sp_call copy = *call;
  int64_t n = in->length + (kind == LONGER) - (kind == SHORTER);
  struct ArrowArray *ints = column(call, n, 2), *texts = column(call, n, 4);
  int32_t *views = zeros(call, (size_t)(n + 1) * 16);
  char *text = zeros(call, 64);
  int64_t *sizes = zeros(call, 8);
  strcpy(text, "a text that is longer than a view");
  sizes[0] = (int64_t)strlen(text);
  views[0] = 20;
  memcpy(&views[1], text, 4);
  ints->buffers[1] = zeros(call, (size_t)(n + 1) * 8);
  texts->buffers[1] = views;
  texts->buffers[2] = text;
  texts->buffers[3] = sizes;
  *out = *column(call, n, 1);
  out->n_children = 2;
  out->children = zeros(call, 16);
  out->children[0] = ints;
  out->children[1] = texts;
  switch (kind) {
  case NULL_BUFFER: ints->buffers[1] = NULL; break;
  case NULL_LIST: ints->buffers = NULL; break;
  case WRONG_TYPE: out->children[1] = ints; break;
  case ONE_COLUMN: out->n_children = 1; break;
  case NULL_CHILD: out->children[1] = NULL; break;
  case RELEASED_CHILD: texts->release = NULL; break;
  case NEGATIVE: texts->length = -5; break;
  case BAD_UTF8: text[3] = (char)0xff; memcpy(&views[1], text, 4); break;
  case OUTSIDE: views[3] = 30; break;
  case BAD_PREFIX: views[1] = 0; break;
  case NO_SIZES: texts->buffers[3] = NULL; break;
  case FALSE_NULLS: ints->null_count = 1; break;
  case NULLS: ints->null_count = -1; ints->buffers[0] = zeros(call, (size_t)n); break;
  case KEEPS: kept = *in; in->release = NULL; break;
  case LATE_REJECT:
    if (host->emit(call, out) != SP_OK) return SP_E_INTERNAL;
    out->release = NULL;
    return host->reject(call, 0, -1, none, none) == SP_OK ? SP_OK : SP_E_DATA;
  case SILENT_REJECT: host->reject(call, 0, -1, none, none); break;
  case FAR_REJECT: host->reject(call, n, -1, none, none); break;
  case STALE_CALL: /* a call that is not this one gets nothing */
    if (host->alloc(&copy, 8) || host->alloc(old_call, 8) || host->reserve((void *)call, 1) >= 0) return SP_OK;
    strcpy(e->message, "was refused");
    out->release = NULL;
    return SP_E_INTERNAL;
  case ENDS: return SP_EOS;
  case FAILS:
    strcpy(e->message, host->cancelled(call->owner) ? "cancelled" : "no luck today");
    sizes = host->grow(call, sizes, 8, 800);
    if (!sizes || sizes[0] != (int64_t)strlen(text)) strcpy(e->message, "grow loses bytes");
    host->log(call->owner, 1, about);
    host->log((void *)call, 1, about);
    return SP_E_DATA;
  case MUTE: out->release = NULL; return -77;
  case POISONED: e->flags = SP_ERR_POISONED; return SP_E_PANIC;
  case NO_MEMORY: return SP_E_MEMORY;
  case HUGE: return host->alloc(call, (size_t)-1) || host->alloc(call, (size_t)1 << 50) ? SP_OK : SP_E_MEMORY;
  default: break;
  }
  return SP_OK;
}

static void destroy(void *inst) { (void)inst; }

static sp_plugin plugin;

const sp_plugin *standpipe_plugin_entry_v1(void) {
  int i;
  for (i = 0; i < KINDS; i++) {
    sp_stage *s = &stages[i];
    s->struct_size = sizeof(*s);
    s->kind = SP_TRANSFORM;
    s->name = names[i];
    s->bind = bind;
    s->create = create;
    s->process = process;
    s->destroy = destroy;
    list[i] = s;
  }
  plugin.struct_size = sizeof(plugin);
  plugin.abi_major = SP_ABI_MAJOR;
  plugin.n_stages = KINDS;
  plugin.stages = list;
  return &plugin;
}
