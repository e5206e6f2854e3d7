/* standpipe_plugin.h -- the plugin ABI, version 1. C99 and C++11; no dependencies; may be copied.
 *
 * Laws
 * - A struct starts with struct_size; it grows at its tail only. Flag bits 0-15 may be ignored, 16-31 must be understood.
 * - Data crosses as Arrow C Data Interface arrays, in these formats: n, b, l (int), g (float), d:P,S (decimal of 128 bits),
 *   tdD (date), tsu:UTC (timestamp), tDu (duration), vu (string; json with the extension name arrow.json), vz (bytes), +l, +s.
 * - What the host lends is normalised: offset 0, null_count known, validity NULL if and only if there are no nulls; a list's
 *   first offset need not be 0. Buffers are aligned to their elements. Lent memory is never written to.
 * - What a plugin gives may have any offset and null_count -1; the host checks and normalises it.
 * - After SP_E_PANIC or SP_ERR_POISONED only destroy is called.
 *
 * The life of a stage: bind -> create -> process* -> finish -> destroy, and unbind behind the last destroy. A plugin written in
 * C gives its description to tools that do not run it with SP_NOTE; one in Rust has all of this from `standpipe_sdk::export!`.
 */
#ifndef SP_PLUGIN_H
#define SP_PLUGIN_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define SP_ABI_MAJOR 1u /* also in the symbol's name: another major is another symbol */
#define SP_ABI_MINOR 0u /* grows with tail fields, extension ids, flag bits */
#define SP_ENTRY_SYMBOL "standpipe_plugin_entry_v1"
/* A field may be read only if the struct of whoever made it is long enough to hold it. */
#define SP_HAS(p, T, f) ((p)->struct_size >= offsetof(T, f) + sizeof((p)->f))
#if defined(_WIN32)
#define SP_EXPORT __declspec(dllexport)
#else
#define SP_EXPORT __attribute__((visibility("default")))
#endif
/* Once per library: what `standpipe plugin inspect` reads without running it. `json` is a string literal:
 * {"id", "version", "abi": [1, 0], "stages": [{"name", "kind", "about", "params"}]}; "params" as in sp_stage. */
#if defined(__GNUC__)
#define SP_NOTE(json) __attribute__((used)) const char sp_note[] = "STANDPIPEMETA1" json
#else
#define SP_NOTE(json) const char sp_note[] = "STANDPIPEMETA1" json
#endif

#ifndef ARROW_C_DATA_INTERFACE /* the guard's name is fixed by Arrow */
#define ARROW_C_DATA_INTERFACE
#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4
struct ArrowSchema {
  const char *format;
  const char *name;
  const char *metadata;
  int64_t flags;
  int64_t n_children;
  struct ArrowSchema **children;
  struct ArrowSchema *dictionary;
  void (*release)(struct ArrowSchema *);
  void *private_data;
};
struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void **buffers;
  struct ArrowArray **children;
  struct ArrowArray *dictionary;
  void (*release)(struct ArrowArray *);
  void *private_data;
};
#endif

/* UTF-8, without a NUL at the end. */
typedef struct sp_str {
  const char *ptr;
  size_t len;
} sp_str;

typedef int32_t sp_status; /* >= 0: it went well; < 0: it failed */
enum {
  SP_OK = 0,
  SP_MORE = 1,    /* source: *out is filled, call again */
  SP_PENDING = 2, /* source: nothing now, call again later */
  SP_EOS = 3,     /* no further output, ever; from emit and reject: nobody wants more */
  SP_E_CONFIG = -1,
  SP_E_SCHEMA = -2,
  SP_E_DATA = -3,
  SP_E_IO = -4,
  SP_E_MEMORY = -5, /* the instance is as it was before the call: the host may give the rows again, in smaller batches */
  SP_E_CANCELLED = -6,
  SP_E_UNSUPPORTED = -7,
  SP_E_INTERNAL = -8,
  SP_E_PANIC = -9 /* destroy is the only legal call from now on */
};

/* The host's, zeroed before each call, filled in place: there is nothing to free. */
typedef struct sp_error {
  uint32_t struct_size;
  uint32_t flags;
  int64_t row;    /* of the input batch; -1 = none */
  int32_t column; /* of the input batch; -1 = none */
  uint32_t retry_ms;
  char param[64];     /* the argument at fault */
  char message[1024]; /* UTF-8, ends with a NUL, cut by the writer */
} sp_error;
enum { SP_ERR_RETRYABLE = 1u, SP_ERR_POISONED = 2u /* destroy is the only legal call from now on */ };

typedef struct sp_call sp_call;

/* The host's services. alloc, grow, emit and reject take a call and work on that call's thread during that call only; the
 * others work on any thread from create to destroy, with the `owner` of the instance. */
typedef struct sp_host {
  uint32_t struct_size, abi_major, abi_minor, reserved;
  sp_str name, version;
  /* Memory of the chunk, aligned to 64 bytes; NULL = over the budget: return SP_E_MEMORY. It lives until the call returns
   * or, in an array that is given to the host, as long as the host needs it. Never freed by the plugin. */
  void *(*alloc)(const sp_call *, size_t size);
  /* A larger copy. The old memory stays readable. */
  void *(*grow)(const sp_call *, void *p, size_t old_size, size_t new_size);
  /* To be put into `release` of an array, and of its children, all of whose buffers come from alloc or from lent input:
   * such arrays are not copied. */
  void (*arena_release)(struct ArrowArray *);
  /* Gives a batch of output to the stages behind; the array is moved. SP_OK: go on. SP_EOS: nobody wants more. An error:
   * return at once. The input stays lent meanwhile. */
  sp_status (*emit)(const sp_call *, struct ArrowArray *);
  /* One bad row of the input, not emitted yet; any number per call. SP_OK: go on. SP_EOS: the run ends at this row: what was
   * made of earlier rows may still be given. Needs SP_F_REJECTS. */
  sp_status (*reject)(const sp_call *, int64_t row, int32_t column, sp_str code, sp_str message);
  /* Declares memory of the plugin's own that lives longer than a call; `delta` bytes may be negative. */
  sp_status (*reserve)(void *owner, int64_t delta);
  void (*log)(void *owner, int32_t level, sp_str message);
  /* Not 0: the run is over. To be asked every 10 ms of work or so. */
  int32_t (*cancelled)(void *owner);
  const void *(*extension)(const char *id); /* NULL = not offered */
} sp_host;

struct sp_call {
  uint32_t struct_size;
  uint32_t input_port;
  const sp_host *host;
  void *owner;       /* who the instance is, for reserve, log and cancelled; not a pointer to read */
  uint64_t batch_seq; /* calls of this instance so far */
  uint64_t max_rows;  /* source: the most rows that one array may have */
  sp_str folder;      /* where relative paths start; empty = where the process is */
  uint32_t run_flags, reserved;
};
enum { SP_RUN_NO_SYNC = 1u << 0 /* a sink need not wait until its output is on the disk */ };

typedef sp_status (*sp_write_fn)(void *ctx, const void *p, size_t n);

enum { SP_SOURCE = 1, SP_TRANSFORM = 2, SP_SINK = 3, SP_SCALAR = 4, SP_AGGREGATE = 5 };
enum {
  SP_PAR_SERIAL = 0,    /* one instance, batches in order */
  SP_PAR_STATELESS = 1, /* any number of instances, any batch to any of them */
  SP_PAR_KEYED = 2,     /* equal keys always to the same instance, batches in order */
  SP_PAR_SPLITS = 3     /* source: up to n_splits instances */
};
/* How memory of the plugin's own grows. */
enum {
  SP_MEM_BATCH = 0, /* it has none beyond a call */
  SP_MEM_CONSTANT = 1,
  SP_MEM_GROUPS = 2,
  SP_MEM_FRAME = 3,
  SP_MEM_SPILL = 4,
  SP_MEM_HELD = 5 /* with the input */
};
enum {
  SP_F_PRESERVES_ORDER = 1u << 0,
  SP_F_NEEDS_ORDER = 1u << 1,
  /* Output row i is made of input row i: the arrays given in one call, end to end, have as many rows as the input. Rejected
   * rows are among them (their values do not matter); the host takes them out. */
  SP_F_ROW_ALIGNED = 1u << 2,
  SP_F_DETERMINISTIC = 1u << 3,
  SP_F_BLOCKING = 1u << 4,
  SP_F_SNAPSHOT = 1u << 5,
  SP_F_NULL_PROPAGATING = 1u << 6,
  SP_F_REJECTS = 1u << 7,        /* calls host->reject */
  SP_F_RETAINS_INPUT = 1u << 16, /* may keep input that it moved out of a call */
  SP_F_THREAD_AFFINE = 1u << 17,
  SP_F_ROW_OF = 1u << 18 /* each array has one child more, the last: int32 input row of each output row, non-decreasing */
};

/* Borrowed for the call. The output's schema may point at strings of the inputs: the host reads it before they go. */
typedef struct sp_bind_in {
  uint32_t struct_size, n_inputs;
  const struct ArrowSchema *const *inputs; /* each "+s" */
  /* The arguments, as a JSON object; what was not given is not in it:
   *   "mode": "left"   "as": "name"   "items", "by", "on": [ARG, ...]   "options": {"name": ARG, ...}
   * ARG is {"column": n} (of the input; what was written as an expression is a column as well), {"value": v}, {"word": "w"},
   * {"words": ["w", ...]} or {"type": "int?"}; beside it may stand "name": "as written", "desc": true (`-key`).
   * v is JSON; what JSON has no form for is {"date": days}, {"timestamp": us}, {"duration": us}, {"decimal": "1.50"},
   * {"float": "nan"}, {"json": "text"} or {"record": {...}}. Functions get {"items": [null or {"value": v}, ...]}: the arguments
   * that are constants. */
  sp_str config_json;
  uint32_t max_workers, flags;
  uint32_t n_own; /* so many columns of the first input are the stream's; those behind were computed for arguments */
  uint32_t reserved;
} sp_bind_in;

/* Zeroed by the host but for struct_size; filled by bind. A bind that fails gives nothing that had to be freed. */
typedef struct sp_bind_out {
  uint32_t struct_size, flags;
  struct ArrowSchema schema; /* "+s": all columns of the output; released by the host */
  void *bound;               /* shared by all instances, on any threads, until unbind */
  uint32_t parallelism, n_splits; /* n_splits of sources; at least 1 */
  const int32_t *key_columns; /* arrays here live as long as `bound` */
  uint32_t n_keys, max_workers;
  /* The input columns that `process` gets, in this order; NULL = all. */
  const int32_t *used_columns;
  uint32_t n_used_columns, memory;
  /* For each output column the input column that it is, unchanged, or -1; NULL = all -1. Of row-aligned stages and those with
   * SP_F_ROW_OF: the host puts those columns there, `process` gives only the others. */
  const int32_t *from_columns;
} sp_bind_out;

/* One stage or function.
 * SP_SCALAR: the input has a column per argument; the output schema has one column, whose nullability counts if the flag
 * SP_F_NULL_PROPAGATING is not set. It is stateless and row-aligned, whatever it says, and gets only rows that count if it has
 * SP_F_REJECTS. With SP_F_NULL_PROPAGATING the host makes rows with a null argument null.
 * SP_AGGREGATE: `bind` as for a function; `process` is NULL, and extension("standpipe.aggregate/1") gives an sp_aggregate.
 * SP_SOURCE: no input; `bind` says n_splits, `create` is told which one. `process` gets no input and gives one array a call, in
 * `out` or through emit: SP_MORE = there may be more, SP_EOS = the split has ended, SP_PENDING = nothing now, ask again after
 * retry_ms of the error. Rows of split i precede those of i + 1. After SP_E_MEMORY, answered because of alloc or emit and with
 * nothing given, the same rows are asked for again with a lower max_rows.
 * SP_SINK: no output columns (`schema` may be left released); serial, the rows in order. `finish` comes behind the last row and
 * makes the output what everybody sees, unless extension("standpipe.sink/1") gives an sp_sink: then `finish` only completes it.
 * An instance that is destroyed before its output was published leaves nothing behind. A process that is killed removes nothing: a
 * file that has no name before it is published (on Linux open with O_TMPFILE, then linkat) is gone with it. */
typedef struct sp_stage {
  uint32_t struct_size, kind, flags, state_version;
  const char *name, *version, *summary, *doc_md;
  /* What it takes, as a JSON object; NULL = nothing. Of a stage:
   *   "modes": ["left", ...]   "as": "what a name means"
   *   "items", "by", "on": {"arg": KIND, "min": 1, "max": 1, "about": "..."}; an "arg" may be a list, one KIND per item
   *   "options": [{"name": "n", "arg": KIND, "default": "10", "required": false, "about": "..."}, ...]
   * KIND is "column", "key" (a column or expression, perhaps with `-`), "word", "words", "type", "expr" or "const"; the last two
   * may say of what type: "expr:int", with any bool int number string list record duration ordered.
   * Of a function or an aggregate: {"params": [{"name": "x", "type": "float", "default": "0"}, ...]}; types are those of the
   * language or any number ordered list record. Of an aggregate, "columns": n says that those behind are constants. */
  const char *params;
  /* Pure, on any thread, also for `check` and editors: no I/O. */
  sp_status (*bind)(const struct sp_stage *, const sp_host *, const sp_bind_in *, sp_bind_out *, sp_error *);
  void (*unbind)(void *bound); /* after the last destroy; NULL = nothing to do */
  sp_status (*create)(void *bound, const sp_call *, uint32_t split, void **inst, sp_error *);
  /* `in` is lent for the call; left in place, the host takes it back. An array moved out of it (its release made NULL) must be
   * released, or given on, before the call ends. `out` may be left empty, or hold the last array of the call: others go
   * through emit. */
  sp_status (*process)(void *inst, const sp_call *, struct ArrowArray *in, struct ArrowArray *out, sp_error *);
  /* After the last batch, of serial stages only; NULL = nothing to do. A row-aligned stage has no rows left to give. */
  sp_status (*finish)(void *inst, const sp_call *, struct ArrowArray *out, sp_error *);
  sp_status (*snapshot)(void *inst, const sp_call *, sp_write_fn, void *write_ctx, sp_error *);
  sp_status (*restore)(void *inst, const sp_call *, uint32_t state_version, const void *p, size_t n, sp_error *);
  void (*destroy)(void *inst); /* cannot fail; legal after any error */
  const void *(*extension)(const struct sp_stage *, const char *id);
} sp_stage;

/* extension("standpipe.aggregate/1") of a stage. An instance has one state per group; groups are numbered from 0, and begin with the
 * `room` that counts them in. Calls of one instance come one after the other.
 * What comes out must not depend on the order of rows, of `update` and of `merge`: a plugin that sets SP_F_NEEDS_ORDER is refused. Only
 * `room` and `room_to_merge` may be refused; they change nothing that can be seen, and are all that may answer SP_E_MEMORY but `state`
 * and `finalize`, for want of `alloc`. What `state` gives, `merge` takes, perhaps in another process.
 * `args` are the arguments that are columns ("columns" of params). With SP_F_REJECTS `finalize` may call host->reject for a group
 * that has no value, by its position in `groups`. The output's schema has one column; if it has no nulls, a group with values is
 * never null. */
typedef struct sp_aggregate {
  uint32_t struct_size, flags;
  size_t state_size; /* bytes that a group takes: the host reserves them; more is to be declared with host->reserve in `room` */
  sp_status (*state_schema)(void *bound, struct ArrowSchema *out, sp_error *); /* "+s" */
  /* Makes room for n_groups groups in all, and for what `update` with these rows may add; NULL = state_size says all. */
  sp_status (*room)(void *inst, const sp_call *, uint32_t n_groups, const struct ArrowArray *args, sp_error *);
  sp_status (*room_to_merge)(void *inst, const sp_call *, uint32_t n_groups, const struct ArrowArray *states, sp_error *);
  /* Row r goes to group group_of_row[r]. Rows with a null argument are not among them. */
  sp_status (*update)(void *inst, const sp_call *, const uint32_t *group_of_row, struct ArrowArray *args, sp_error *);
  sp_status (*merge)(void *inst, const sp_call *, const uint32_t *group_of_row, struct ArrowArray *states, sp_error *);
  /* The states of these groups, in this order. */
  sp_status (*state)(void *inst, const sp_call *, uint32_t n, const uint32_t *groups, struct ArrowArray *out, sp_error *);
  /* The values of these groups, in this order: a struct of one column. */
  sp_status (*finalize)(void *inst, const sp_call *, uint32_t n, const uint32_t *groups, struct ArrowArray *out, sp_error *);
  void (*clear)(void *inst); /* forgets all groups */
} sp_aggregate;

/* One output of a sink that now has its name. Zeroed by the host but for struct_size. */
typedef struct sp_published {
  uint32_t struct_size, flags;
  uint64_t rows, bytes; /* for the report */
  char name[1024];      /* UTF-8, ends with a NUL; left empty it is what the script calls the sink's first argument */
} sp_published;

/* extension("standpipe.sink/1") of a stage. A run has several outputs: all are completed (`finish`) before one is published. */
typedef struct sp_sink {
  uint32_t struct_size, flags;
  /* Gives an output its name. SP_MORE: there is another one, call again; SP_OK: that was the last. Only `destroy` follows. */
  sp_status (*publish)(void *inst, const sp_call *, sp_published *, sp_error *);
} sp_sink;

typedef struct sp_plugin {
  uint32_t struct_size, abi_major, abi_minor, n_stages;
  const char *id, *version, *license, *build_info; /* "org.example.geo": scripts say its last word; semver, SPDX, compiler */
  const sp_stage *const *stages;                   /* live as long as the library: for ever */
  sp_status (*init)(const sp_host *, sp_str library_path, sp_error *); /* once per process; NULL = nothing to do */
  void (*deinit)(void); /* stop threads; the library is never unloaded */
  const void *(*extension)(const char *id);
} sp_plugin;

/* The only exported symbol: pure, no allocation, the same pointer every time. */
SP_EXPORT const sp_plugin *standpipe_plugin_entry_v1(void);

#ifdef __cplusplus
}
#endif
#endif
