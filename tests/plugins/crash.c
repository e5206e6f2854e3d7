/* A plugin that ends its process, hangs or eats memory where it is told to, for tests of isolation:
 * crash at: "process", how: "segv"   each row as it is; at is one of bind, create, process, finish, destroy, unbind and none,
 *                                    how one of segv, abort, exit, loop, eat, and in process emit, log, reserve:
 *                                    that without end, whatever it is answered, or copes: with memory that is refused,
 *                                    or noise, kind, short: it finds the way to the host and says what is no answer;
 * boom(x: int)                       the number as it is; 7 ends the process, 9 says what is no answer;
 * write crash.drain "path", x, at: "publish", how: "segv"
 *                                    writes the sum of a column into a file; at may be publish as well;
 * read crash.well at: "process", how: "segv"
 *                                    the numbers from 1 to 20,000, in four splits; with how: wide its snapshots take 3 MiB;
 * crash.sum(x, at: "merge", how: "segv")
 *                                    a sum, that says with how: wide that each state takes 64 bytes, and 21,290 once it is merged, with huge 4 MiB; at may be state_schema, room, room_to_merge, update, merge, state, finalize, clear. */
#include "standpipe_plugin.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Whether `text` stands in the arguments. */
static int says(sp_str json, const char *text) {
  size_t i, n = strlen(text);
  for (i = 0; i + n <= json.len; i++)
    if (memcmp(json.ptr + i, text, n) == 0) return 1;
  return 0;
}

enum { SEGV, ABORT, EXIT, LOOP, EAT, EMIT, LOG, RESERVE, WIDE, HUGE_, COPES, NOISE, KIND, SHORT_, HOWS };
static const char *const hows[] = {"\"segv\"", "\"abort\"", "\"exit\"", "\"loop\"", "\"eat\"", "\"emit\"", "\"log\"", "\"reserve\"", "\"wide\"", "\"huge\"", "\"copes\"", "\"noise\"", "\"kind\"", "\"short\""};
enum { BIND, CREATE, PROCESS, FINISH, DESTROY, UNBIND, PUBLISH, SCHEMA, ROOM, ROOM_TO_MERGE, UPDATE, MERGE, STATE, FINALIZE, CLEAR, PLACES };
static const char *const places[] = {"\"bind\"", "\"create\"", "\"process\"", "\"finish\"", "\"destroy\"", "\"unbind\"", "\"publish\"",
    "\"state_schema\"", "\"room\"", "\"room_to_merge\"", "\"update\"", "\"merge\"", "\"state\"", "\"finalize\"", "\"clear\""};

static volatile char *nothing;

/* Says this over every socket that is open: one of them leads to the host. */
static void say(const char *bytes, size_t n) {
  char name[256];
  int fd;
  for (fd = 3; fd < 256; fd++) {
    socklen_t len = sizeof(name);
    if (getsockname(fd, (struct sockaddr *)name, &len) == 0) send(fd, bytes, n, MSG_NOSIGNAL);
  }
}

static void fail(int how) {
  size_t i, gib = (size_t)1 << 31;
  char *p;
  switch (how) {
    case SEGV: *nothing = 1; break;
    case ABORT: abort();
    case EXIT: exit(0);
    case LOOP: for (;;) nothing = NULL;
    case EAT:
      p = malloc(gib);
      for (i = 0; i < gib; i += 4096) ((volatile char *)p)[i] = 1;
      break;
    case NOISE: say("this is no frame of any kind", 28); break;
    /* Frames as the host reads them: the length, the kind, and what stands behind it. */
    case KIND: say("\x09\0\0\0\x4d\0\0\0\0\0\0\0", 13); break;
    case SHORT_: say("\x09\0\0\0\x20\0\0\0\0\0\0\0\0", 13);
  }
}

typedef struct bound { int at, how; int32_t *from; char path[256]; int64_t sum; } bound;

static void at(const bound *b, int place) { if (b->at == place) fail(b->how); }

static void unbind(void *p) {
  bound *b = p;
  at(b, UNBIND);
  free(b->from);
  free(b);
}

static void release_schema(struct ArrowSchema *s) { s->release = NULL; }

static struct ArrowSchema number, *numbers[1] = {&number};

static bound *told(const sp_bind_in *in) {
  bound *b = calloc(1, sizeof(*b));
  int i;
  b->at = PLACES;
  for (i = 0; i < PLACES; i++) if (says(in->config_json, places[i])) b->at = i;
  for (i = 0; i < HOWS; i++) if (says(in->config_json, hows[i])) b->how = i;
  at(b, BIND);
  return b;
}

/* One int column. */
static void schema(sp_bind_out *out, const char *name) {
  number.format = "l";
  number.name = name;
  number.release = release_schema;
  out->schema.format = "+s";
  out->schema.name = "";
  out->schema.n_children = 1;
  out->schema.children = numbers;
  out->schema.release = release_schema;
}

static sp_status bind_crash(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  (void)s; (void)h; (void)e;
  out->bound = told(in);
  schema(out, "value");
  out->parallelism = SP_PAR_SERIAL;
  return SP_OK;
}

static sp_status bind_boom(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  (void)s; (void)h; (void)e;
  out->bound = told(in);
  schema(out, "");
  return SP_OK;
}

static sp_status create(void *b, const sp_call *call, uint32_t split, void **inst, sp_error *e) {
  (void)call; (void)split; (void)e;
  at(b, CREATE);
  *inst = b;
  return SP_OK;
}

/* A struct of one column of `n` numbers, which are still to be written. */
static int64_t *column(const sp_call *call, int64_t n, struct ArrowArray *out) {
  int64_t *values = call->host->alloc(call, (size_t)n * 8 + 8);
  struct ArrowArray *child = call->host->alloc(call, sizeof(*child));
  struct ArrowArray **list = call->host->alloc(call, sizeof(*list));
  const void **buffers = call->host->alloc(call, 3 * sizeof(*buffers));
  if (!values || !child || !list || !buffers) return NULL;
  memset(child, 0, sizeof(*child));
  memset(out, 0, sizeof(*out));
  buffers[0] = buffers[1] = NULL;
  buffers[2] = values;
  out->length = child->length = n;
  out->n_buffers = 1;
  out->buffers = buffers;
  child->n_buffers = 2;
  child->buffers = buffers + 1;
  out->n_children = 1;
  out->children = list;
  list[0] = child;
  out->release = child->release = call->host->arena_release;
  return values;
}

/* Does not end. */
static void ask_on(const bound *b, const sp_call *call) {
  struct ArrowArray array, given;
  sp_str text = {"on and on", 9};
  int64_t *values;
  if (b->at != PROCESS || b->how < EMIT || b->how > RESERVE) return;
  values = column(call, 1, &array);
  if (!values) abort();
  values[0] = 1;
  for (;;) switch (b->how) {
    case EMIT:
      given = array;
      given.children[0]->release = array.release;
      call->host->emit(call, &given);
      break;
    case LOG: call->host->log(call->owner, 0, text); break;
    case RESERVE: call->host->reserve(call->owner, 0);
  }
}

/* The first column once more. */
static sp_status same(const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, int boom) {
  int64_t i, *values = column(call, in->length, out);
  const int64_t *from = in->children[0]->buffers[1];
  if (!values) return SP_E_MEMORY;
  for (i = 0; i < in->length; i++) {
    values[i] = from[i];
    if (boom && values[i] == 7) fail(SEGV);
    if (boom && values[i] == 9) fail(SHORT_);
  }
  return SP_OK;
}

static sp_status process_crash(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  const bound *b = inst;
  struct ArrowArray array;
  sp_status status;
  (void)e;
  at(inst, PROCESS);
  ask_on(inst, call);
  if (b->how == COPES) {
    if (call->host->alloc(call, (size_t)1 << 45)) abort();
    status = same(call, in, &array, 0);
    return status < 0 ? status : call->host->emit(call, &array);
  }
  return same(call, in, out, 0);
}

static sp_status process_boom(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  (void)e; (void)inst;
  return same(call, in, out, 1);
}

static sp_status finish(void *inst, const sp_call *call, struct ArrowArray *out, sp_error *e) {
  (void)call; (void)out; (void)e;
  at(inst, FINISH);
  return SP_OK;
}

static void destroy(void *inst) { at(inst, DESTROY); }

/* The sink: what is bound is its one instance. */
static sp_status bind_drain(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  static const char key[] = "{\"value\":\"";
  bound *b = told(in);
  size_t i, to = 0;
  (void)s; (void)h; (void)e;
  for (i = 0; i + sizeof(key) < in->config_json.len; i++)
    if (memcmp(in->config_json.ptr + i, key, sizeof(key) - 1) == 0) {
      for (i += sizeof(key) - 1; in->config_json.ptr[i] != '"' && to + 1 < sizeof(b->path);) b->path[to++] = in->config_json.ptr[i++];
      break;
    }
  out->bound = b;
  out->parallelism = SP_PAR_SERIAL;
  out->memory = SP_MEM_CONSTANT;
  return SP_OK;
}

static sp_status process_drain(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  bound *b = inst;
  const int64_t *values = in->children[0]->buffers[1];
  int64_t i;
  (void)call; (void)out; (void)e;
  at(inst, PROCESS);
  for (i = 0; i < in->length; i++) b->sum += values[i];
  return SP_OK;
}

static sp_status publish(void *inst, const sp_call *call, sp_published *out, sp_error *e) {
  bound *b = inst;
  char path[512];
  FILE *file;
  at(inst, PUBLISH);
  snprintf(path, sizeof(path), "%.*s%s%s", (int)call->folder.len, call->folder.ptr, call->folder.len ? "/" : "", b->path);
  file = fopen(path, "w");
  if (!file) {
    snprintf(e->message, sizeof(e->message), "cannot write `%s`", b->path);
    return SP_E_IO;
  }
  out->bytes = (uint64_t)fprintf(file, "%lld\n", (long long)b->sum);
  out->rows = 1;
  snprintf(out->name, sizeof(out->name), "the sum in %s%s", b->path,
           SP_HAS(call, sp_call, run_flags) && (call->run_flags & SP_RUN_NO_SYNC) ? ", not synced" : "");
  fclose(file);
  return SP_OK;
}

static const sp_sink publishes = {sizeof(sp_sink), 0, publish};

static const void *sink(const sp_stage *s, const char *id) {
  (void)s;
  return strcmp(id, "standpipe.sink/1") == 0 ? &publishes : NULL;
}

/* The source: four splits. */
enum { SPLITS = 4, SPLIT_ROWS = 5000, SNAPSHOT = 3 << 20 };
typedef struct split { bound *b; int64_t next, end; } split;

static sp_status bind_well(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  (void)s; (void)h; (void)e;
  out->bound = told(in);
  schema(out, "n");
  out->parallelism = SP_PAR_SPLITS;
  out->n_splits = SPLITS;
  out->flags = SP_F_SNAPSHOT | SP_F_DETERMINISTIC;
  return SP_OK;
}

static sp_status create_well(void *b, const sp_call *call, uint32_t number, void **inst, sp_error *e) {
  split *p = calloc(1, sizeof(*p));
  (void)call; (void)e;
  at(b, CREATE);
  p->b = b;
  p->next = (int64_t)number * SPLIT_ROWS;
  p->end = p->next + SPLIT_ROWS;
  *inst = p;
  return SP_OK;
}

static sp_status process_well(void *inst, const sp_call *call, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {
  split *p = inst;
  struct ArrowArray array;
  int64_t i, *values, n = p->end - p->next;
  sp_status status;
  (void)in; (void)out; (void)e;
  at(p->b, PROCESS);
  ask_on(p->b, call);
  if ((uint64_t)n > call->max_rows) n = (int64_t)call->max_rows;
  if (n > 777) n = 777;
  if (n == 0) return SP_EOS;
  values = column(call, n, &array);
  if (!values) return SP_E_MEMORY;
  for (i = 0; i < n; i++) values[i] = p->next + i + 1;
  status = call->host->emit(call, &array);
  if (status < 0) return status;
  p->next += n;
  return SP_MORE;
}

static sp_status snapshot_well(void *inst, const sp_call *call, sp_write_fn write, void *ctx, sp_error *e) {
  static const char more[SNAPSHOT];
  split *p = inst;
  sp_status status = write(ctx, &p->next, sizeof(p->next));
  (void)call; (void)e;
  return status < 0 || p->b->how != WIDE ? status : write(ctx, more, sizeof(more));
}

static sp_status restore_well(void *inst, const sp_call *call, uint32_t version, const void *bytes, size_t n, sp_error *e) {
  split *p = inst;
  (void)call; (void)version; (void)e;
  if (n != sizeof(p->next) + (p->b->how == WIDE ? SNAPSHOT : 0)) return SP_E_DATA;
  memcpy(&p->next, bytes, sizeof(p->next));
  return SP_OK;
}

static void destroy_well(void *inst) {
  split *p = inst;
  at(p->b, DESTROY);
  free(p);
}

/* The aggregate: a sum, whose state is a number. */
typedef struct groups { bound *b; int64_t *sums; uint32_t n; } groups;

static sp_status bind_sum(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {
  (void)s; (void)h; (void)e;
  out->bound = told(in);
  schema(out, "");
  out->parallelism = SP_PAR_STATELESS;
  return SP_OK;
}

static sp_status create_sum(void *b, const sp_call *call, uint32_t number, void **inst, sp_error *e) {
  groups *g = calloc(1, sizeof(*g));
  (void)call; (void)number; (void)e;
  at(b, CREATE);
  g->b = b;
  *inst = g;
  return SP_OK;
}

static sp_status state_schema(void *b, struct ArrowSchema *out, sp_error *e) {
  sp_bind_out made;
  (void)e;
  at(b, SCHEMA);
  memset(&made, 0, sizeof(made));
  schema(&made, "sum");
  *out = made.schema;
  return SP_OK;
}

static sp_status more(groups *g, const sp_call *call, uint32_t n, int64_t bytes) {
  int64_t *sums;
  if (n <= g->n) return SP_OK;
  if (call->host->reserve(call->owner, (n - g->n) * (g->b->how == HUGE_ ? 4 << 20 : g->b->how == WIDE ? bytes : 8)) < 0)
    return SP_E_MEMORY;
  sums = realloc(g->sums, n * sizeof(*sums));
  if (!sums) return SP_E_MEMORY;
  memset(sums + g->n, 0, (n - g->n) * sizeof(*sums));
  g->sums = sums;
  g->n = n;
  return SP_OK;
}

static sp_status room(void *inst, const sp_call *call, uint32_t n, const struct ArrowArray *args, sp_error *e) {
  (void)args; (void)e;
  at(((groups *)inst)->b, ROOM);
  return more(inst, call, n, 64);
}

static sp_status room_to_merge(void *inst, const sp_call *call, uint32_t n, const struct ArrowArray *states, sp_error *e) {
  (void)states; (void)e;
  at(((groups *)inst)->b, ROOM_TO_MERGE);
  return more(inst, call, n, 21290);
}

static sp_status add(groups *g, const uint32_t *group, const struct ArrowArray *rows) {
  const int64_t *values = rows->children[0]->buffers[1];
  int64_t i;
  for (i = 0; i < rows->length; i++) g->sums[group[i]] += values[i];
  return SP_OK;
}

static sp_status update(void *inst, const sp_call *call, const uint32_t *group, struct ArrowArray *args, sp_error *e) {
  (void)call; (void)e;
  at(((groups *)inst)->b, UPDATE);
  return add(inst, group, args);
}

static sp_status merge(void *inst, const sp_call *call, const uint32_t *group, struct ArrowArray *states, sp_error *e) {
  (void)call; (void)e;
  at(((groups *)inst)->b, MERGE);
  return add(inst, group, states);
}

static sp_status give(groups *g, const sp_call *call, uint32_t n, const uint32_t *group, struct ArrowArray *out) {
  int64_t *values = column(call, n, out);
  uint32_t i;
  if (!values) return SP_E_MEMORY;
  for (i = 0; i < n; i++) values[i] = g->sums[group[i]];
  return SP_OK;
}

static sp_status state(void *inst, const sp_call *call, uint32_t n, const uint32_t *group, struct ArrowArray *out, sp_error *e) {
  (void)e;
  at(((groups *)inst)->b, STATE);
  return give(inst, call, n, group, out);
}

static sp_status finalize(void *inst, const sp_call *call, uint32_t n, const uint32_t *group, struct ArrowArray *out, sp_error *e) {
  (void)e;
  at(((groups *)inst)->b, FINALIZE);
  return give(inst, call, n, group, out);
}

static void clear(void *inst) {
  groups *g = inst;
  at(g->b, CLEAR);
  if (g->n) memset(g->sums, 0, g->n * sizeof(*g->sums));
}

static void destroy_sum(void *inst) {
  groups *g = inst;
  at(g->b, DESTROY);
  free(g->sums);
  free(g);
}

static const sp_aggregate sums = {sizeof(sp_aggregate), 0, 0, state_schema, room, room_to_merge, update, merge, state, finalize, clear};

static const void *aggregate(const sp_stage *s, const char *id) {
  (void)s;
  return strcmp(id, "standpipe.aggregate/1") == 0 ? &sums : NULL;
}

static const sp_stage crash = {
    sizeof(sp_stage), SP_TRANSFORM, 0, 0, "crash", "1.0.0", "Ends its process", NULL,
    "{\"memory\": \"constant\", \"options\": [{\"name\": \"at\", \"arg\": \"const:string\", \"about\": \"where\"}, "
    "{\"name\": \"how\", \"arg\": \"const:string\", \"about\": \"how\"}]}",
    bind_crash, unbind, create, process_crash, finish, NULL, NULL, destroy, NULL};
static const sp_stage boom = {
    sizeof(sp_stage), SP_SCALAR, SP_F_NULL_PROPAGATING, 0, "boom", "1.0.0", "The same number, unless it is seven.", NULL,
    "{\"params\": [{\"name\": \"x\", \"type\": \"int\"}]}",
    bind_boom, unbind, create, process_boom, NULL, NULL, NULL, destroy, NULL};
static const sp_stage drain = {
    sizeof(sp_stage), SP_SINK, 0, 0, "drain", "1.0.0", "Writes the sum of a column", NULL,
    "{\"memory\": \"constant\", \"items\": {\"arg\": [\"const:string\", \"column\"], \"min\": 2, \"max\": 2, "
    "\"about\": \"the file, the column\"}, \"options\": [{\"name\": \"at\", \"arg\": \"const:string\", \"about\": \"where\"}, "
    "{\"name\": \"how\", \"arg\": \"const:string\", \"about\": \"how\"}]}",
    bind_drain, unbind, create, process_drain, finish, NULL, NULL, destroy, sink};
static const sp_stage well = {
    sizeof(sp_stage), SP_SOURCE, 0, 0, "well", "1.0.0", "The numbers from 1 to 20,000", NULL,
    "{\"options\": [{\"name\": \"at\", \"arg\": \"const:string\", \"about\": \"where\"}, "
    "{\"name\": \"how\", \"arg\": \"const:string\", \"about\": \"how\"}]}",
    bind_well, unbind, create_well, process_well, NULL, snapshot_well, restore_well, destroy_well, NULL};
static const sp_stage sum = {
    sizeof(sp_stage), SP_AGGREGATE, 0, 0, "sum", "1.0.0", "A sum", NULL,
    "{\"params\": [{\"name\": \"x\", \"type\": \"int\"}, {\"name\": \"at\", \"type\": \"string\", \"default\": \"\\\"none\\\"\"}, "
    "{\"name\": \"how\", \"type\": \"string\", \"default\": \"\\\"none\\\"\"}], \"columns\": 1}",
    bind_sum, unbind, create_sum, NULL, NULL, NULL, NULL, destroy_sum, aggregate};
static const sp_stage *const stages[] = {&crash, &boom, &drain, &well, &sum};
static const sp_plugin plugin = {sizeof(sp_plugin), SP_ABI_MAJOR, SP_ABI_MINOR, sizeof(stages) / sizeof(*stages), "test.crash", "1.0.0",
                                 "Apache-2.0", "", stages, NULL, NULL, NULL};

SP_NOTE("{\"id\": \"test.crash\", \"version\": \"1.0.0\", \"abi\": [1, 0], \"stages\": ["
        "{\"name\": \"crash\", \"kind\": \"transform\", \"about\": \"Ends its process\"},"
        "{\"name\": \"boom\", \"kind\": \"function\", \"about\": \"The same number, unless it is seven.\"},"
        "{\"name\": \"drain\", \"kind\": \"sink\", \"about\": \"Writes the sum of a column\"},"
        "{\"name\": \"well\", \"kind\": \"source\", \"about\": \"The numbers from 1 to 20,000\"},"
        "{\"name\": \"sum\", \"kind\": \"aggregate\", \"about\": \"A sum\"}]}");

const sp_plugin *standpipe_plugin_entry_v1(void) { return &plugin; }
