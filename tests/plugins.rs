//! Plugins from the project's files to rows: found, verified, refused with a way out, used.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use standpipe::{Engine, Failure, Report};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

fn run_command(program: &str, arguments: &[&str]) -> String {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) => panic!("`{program}` does not run ({error}); `apt-get install build-essential` installs it"),
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}\n{text}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Builds a C plugin.
fn compile(source: &Path, library: &Path, more: &[&str]) {
    let mut arguments = vec![
        "-std=c99",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        "-I",
        "plugins/sdk/include",
    ];
    arguments.extend(more);
    arguments.extend(["-o", text(library), text(source)]);
    run_command("cc", &arguments);
}

/// A project with the plugin `words`, not locked yet.
struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Project {
        let project = Project(tempfile::tempdir().unwrap());
        compile(Path::new("tests/plugins/words.c"), &project.library(), &[]);
        project.says("[plugins.words]\npath = \"libwords.so\"\n");
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn library(&self) -> PathBuf {
        self.path("libwords.so")
    }

    fn says(&self, text: &str) {
        fs::write(self.path("standpipe.toml"), text).unwrap();
    }

    fn cli(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standpipe"));
        let output = command.args(arguments).current_dir(self.0.path()).output().unwrap();
        let text = |bytes| {
            String::from_utf8(bytes)
                .unwrap()
                .replace(text(self.0.path()), "PROJECT")
        };
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn locked(self) -> Project {
        let (status, _, stderr) = self.cli(&["plugin", "lock"]);
        assert_eq!(status, Some(0), "{stderr}");
        self
    }

    /// What the check of a script that uses the plugin says.
    fn refusal(&self) -> String {
        self.run("use plugin words\nfrom range(1, 3) | words.count_up")
            .unwrap_err()
            .to_string()
    }

    fn run(&self, script: &str) -> Result<(Vec<String>, Report), Failure> {
        rows(&Engine::builder().project(self.0.path()).workers(2).build(), script)
    }
}

fn rows(engine: &Engine, script: &str) -> Result<(Vec<String>, Report), Failure> {
    let mut pipeline = engine.compile("test.pipe", script)?;
    let mut out = vec![];
    let report = pipeline.run_with(|_, batch| {
        for row in 0..batch.rows() {
            let cells = batch.columns().iter().map(|column| format!("{:?}", column.cell(row)));
            out.push(cells.collect::<Vec<_>>().join(" "));
        }
        Ok(())
    })?;
    Ok((out, report))
}

#[test]
fn a_locked_plugin_works_in_a_script() {
    let project = Project::new().locked();
    let script = "use plugin words (\">=1.2, <2\")\n\
        from range(1, 4) | derive six = words.double(value, times: 6), two = words.double(value) | words.repeat value - 1";
    let (rows, report) = project.run(script).unwrap();
    let want = [
        "Int(2) Int(12) Int(4) Int(0)",
        "Int(3) Int(18) Int(6) Int(0)",
        "Int(3) Int(18) Int(6) Int(1)",
        "Int(4) Int(24) Int(8) Int(0)",
        "Int(4) Int(24) Int(8) Int(1)",
        "Int(4) Int(24) Int(8) Int(2)",
    ];
    assert_eq!(rows, want);
    let used: Vec<_> = report
        .plugins
        .iter()
        .map(|p| (p.name.as_str(), p.rows_in, p.rows_out))
        .collect();
    assert_eq!(used, [("words.double", 8, 8), ("words.repeat", 4, 6)]);
}

#[test]
fn an_alias_and_a_path_from_the_caller_do_as_well() {
    let project = Project::new();
    let engine = Engine::builder().plugin(project.library()).build();
    let script = "use plugin words as w\nfrom range(1, 25) | w.count_up";
    let (rows, report) = rows(&engine, script).unwrap();
    assert_eq!(rows, ["Int(10)", "Int(20)", "Int(-25)"]);
    assert_eq!(report.plugins[0].peak_bytes, 1000);
    let script = "use plugin words from range(1, 2) | words.count_up";
    let plain = project.cli(&["run", "-e", script, "--plugin", "libwords.so"]);
    assert_eq!(plain, (Some(0), "seen\n-2\n".into(), String::new()));
}

#[test]
fn bad_rows_follow_the_policy() {
    let project = Project::new().locked();
    let run = |script: &str| project.run(&format!("use plugin words\nfrom range(-1, 2) | {script}"));
    let (skipped, _) = run("derive d = words.double(value) on error skip").unwrap();
    assert_eq!(skipped, ["Int(0) Int(0)", "Int(1) Int(2)", "Int(2) Int(4)"]);
    let (null, _) = run("derive d = words.double(value) on error null | take 2").unwrap();
    assert_eq!(null, ["Int(-1) Null", "Int(0) Int(0)"]);
    let (caught, _) = run("derive d = words.double(value) catch 7 | take 1").unwrap();
    assert_eq!(caught, ["Int(-1) Int(7)"]);
    // A branch that is not taken cannot fail.
    let (branch, _) = run("derive d = if value < 0 then 0 else words.double(value) | take 1").unwrap();
    assert_eq!(branch, ["Int(-1) Int(0)"]);
    let failed = run("derive d = words.double(value)").unwrap_err().to_string();
    assert!(
        failed.contains("E0805") && failed.contains("a number below zero (NEGATIVE)"),
        "{failed}"
    );
    let (set_aside, _) = run("words.repeat value + 1, most: 2 on error skip").unwrap();
    assert_eq!(set_aside, ["Int(0) Int(0)", "Int(1) Int(0)", "Int(1) Int(1)"]);
    let failed = run("words.repeat value + 1, most: 2 | take 3").unwrap();
    assert_eq!(failed.0, set_aside, "rows before the bad one");
    let failed = run("words.repeat value + 1, most: 2").unwrap_err().to_string();
    assert!(failed.contains("too many copies"), "{failed}");
}

#[test]
fn wrong_arguments_are_underlined() {
    let project = Project::new().locked();
    let said = |script: &str| {
        let script = format!("use plugin words\nfrom range(1, 2) | {script}");
        project.run(&script).unwrap_err().to_string()
    };
    let all: Vec<String> = [
        "words.repeat value, most: 0",
        "words.repeat \"x\"",
        "words.repeat",
        "words.repeat value, least: 1",
        "words.repaet value",
        "words.double value",
        "derive x = words.duoble(value)",
        "derive x = words.double(value, value)",
        "derive x = words.double(\"a\")",
        "derive x = words.repeat(value)",
        "other.thing value",
    ]
    .map(said)
    .into();
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn every_refusal_says_why_and_how_to_go_on() {
    let mut said = vec![];
    let mut say = |name: &str, text: &str, folder: &Path| {
        said.push(format!(
            "-- {name}\n{}\n",
            text.replace(folder.to_str().unwrap(), "PROJECT")
        ));
    };

    let project = Project::new();
    let folder = project.0.path().canonicalize().unwrap();
    say("not locked", &project.refusal(), &folder);
    let project = project.locked();
    assert!(
        project
            .run("use plugin words from range(1, 3) | words.count_up")
            .is_ok()
    );

    let script = "use plugin words (\">=2\") from range(1, 3) | words.count_up";
    say(
        "another version",
        &project.run(script).unwrap_err().to_string(),
        &folder,
    );
    let script = "use plugin words (\"two\") from range(1, 3) | words.count_up";
    say("no version", &project.run(script).unwrap_err().to_string(), &folder);
    let script = "use plugin word from range(1, 3) | word.count_up";
    say(
        "not in the project",
        &project.run(script).unwrap_err().to_string(),
        &folder,
    );
    let script = "use \"./libwords.so\" as words from range(1, 3) | words.count_up";
    say(
        "a path in a script",
        &project.run(script).unwrap_err().to_string(),
        &folder,
    );

    fs::set_permissions(project.library(), Permissions::from_mode(0o757)).unwrap();
    say("anyone can write", &project.refusal(), &folder);
    fs::set_permissions(project.library(), Permissions::from_mode(0o755)).unwrap();

    let whole = fs::read(project.library()).unwrap();
    let mut changed = whole.clone();
    changed.push(0);
    fs::write(project.library(), &changed).unwrap();
    say("changed", &project.refusal(), &folder);
    fs::write(project.library(), &whole).unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let real = elsewhere.path().join("real.so");
    fs::rename(project.library(), &real).unwrap();
    symlink(&real, project.library()).unwrap();
    let outside = project
        .refusal()
        .replace(text(&elsewhere.path().canonicalize().unwrap()), "ELSEWHERE");
    say("a link out of the project", &outside, &folder);
    fs::remove_file(project.library()).unwrap();
    say("not there", &project.refusal(), &folder);

    project.says("[plugins.words]\npaht = \"libwords.so\"\n");
    say("a misspelt key", &project.refusal(), &folder);
    fs::remove_file(project.path("standpipe.toml")).unwrap();
    say("no project", &project.refusal(), &folder);
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn files_that_cannot_be_loaded_are_refused_before_they_run() {
    let folder = tempfile::tempdir().unwrap();
    let canonical = folder.path().canonicalize().unwrap();
    // Whatever is loaded leaves a trace.
    let trace = folder.path().join("trace");
    let built = |name: &str, code: &str| {
        let (source, library) = (
            folder.path().join(format!("{name}.c")),
            folder.path().join(format!("lib{name}.so")),
        );
        let constructor = format!(
            "#include <stdio.h>\n__attribute__((constructor)) static void run(void) {{ fclose(fopen(\"{}\", \"w\")); }}\n{code}\n",
            trace.display()
        );
        fs::write(&source, constructor).unwrap();
        compile(&source, &library, &[]);
        library
    };
    let said = |library: &Path, name: &str| {
        let engine = Engine::builder().plugin(library).build();
        let script = format!("use plugin {name} from range(1, 3) | {name}.x");
        let text = rows(&engine, &script).unwrap_err().to_string();
        assert!(!trace.exists(), "{name} has run");
        text.replace(canonical.to_str().unwrap(), "FOLDER")
            .replace(std::env::consts::ARCH, "ARCH")
    };
    let no_symbol = built("plain", "int f(void) { return 1; }");
    let other_abi = built("other", "int standpipe_plugin_entry_v9(void) { return 1; }");
    let note = r#"__attribute__((used)) const char note[] = "STANDPIPEMETA1{\"id\": \"noted\", \"abi\": [2, 0]}";"#;
    let other_note = built(
        "noted",
        &format!("{note}\nint standpipe_plugin_entry_v1(void) {{ return 1; }}"),
    );
    let whole = fs::read(&no_symbol).unwrap();
    let changed = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(format!("lib{name}.so"));
        fs::write(&path, bytes).unwrap();
        path
    };
    let pipe = folder.path().join("libpipe.so");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let mut machine = whole.clone();
    machine[18..20].copy_from_slice(&8u16.to_le_bytes());
    let files = [
        (no_symbol, "plain"),
        (other_abi, "other"),
        (other_note, "noted"),
        (changed("cut", &whole[..whole.len() / 2]), "cut"),
        (changed("machine", &machine), "machine"),
        (changed("script", b"#!/bin/sh\n"), "script"),
        (changed("empty", b""), "empty"),
        // Nobody ever writes to it: that must not be waited for.
        (pipe, "pipe"),
        (canonical.clone(), "folder"),
    ];
    let all: Vec<String> = files.iter().map(|(library, name)| said(library, name)).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_library_that_the_caller_names_is_good_or_an_error() {
    let project = Project::new();
    fs::remove_file(project.path("standpipe.toml")).unwrap();
    let whole = fs::read(project.library()).unwrap();
    // With its description, a library loses its name.
    fs::write(project.path("cut.so"), &whole[..64]).unwrap();
    fs::write(project.path("empty.so"), "").unwrap();
    fs::write(project.path("text.so"), "no library").unwrap();
    let unused = "from range(1, 2) | write none\n";
    let used = "use plugin words\nfrom range(1, 2) | words.count_up | write none\n";
    for (name, script) in [("used.pipe", used), ("unused.pipe", unused)] {
        fs::write(project.path(name), script).unwrap();
        for (library, why) in [
            ("cut.so", "error[E0803]: the plugin `PROJECT/cut.so` is cut off\n"),
            ("empty.so", "error[E0803]: the plugin `PROJECT/empty.so` is cut off\n"),
            (
                "text.so",
                "error[E0803]: the plugin `PROJECT/text.so` is no library at all\n",
            ),
            (
                "gone.so",
                "error[E0801]: cannot read the plugin `gone.so`: No such file",
            ),
        ] {
            for command in ["run", "check", "explain", "test"] {
                let (status, out, err) = project.cli(&[command, name, "--plugin", library, "--plugin", "libwords.so"]);
                assert!(
                    status == Some(2) && err.starts_with(why) && out.is_empty(),
                    "{command} {name} {library}: {out}{err}"
                );
            }
        }
        let good = project.cli(&["run", name, "--plugin", "libwords.so"]);
        assert_eq!((good.0, good.2.contains("error")), (Some(0), false), "{}", good.2);
    }
    let engine = Engine::builder().plugin(project.path("cut.so")).build();
    let said = rows(&engine, used).unwrap_err().to_string();
    assert!(said.contains("E0803") && said.contains("cut.so` is cut off"), "{said}");
}

#[test]
fn the_same_file_under_two_names_is_two_plugins() {
    let project = Project::new();
    let source = fs::read_to_string("tests/plugins/words.c").unwrap();
    // Without a description it has no name of its own.
    fs::write(project.path("bare.c"), source.replace("SP_NOTE(\"{", "SP_NOTE(\"no {")).unwrap();
    compile(&project.path("bare.c"), &project.path("libaa.so"), &[]);
    fs::copy(project.path("libaa.so"), project.path("libbb.so")).unwrap();
    project.says("[plugins.aa]\npath = \"libaa.so\"\n\n[plugins.bb]\npath = \"libbb.so\"\n");
    let project = project.locked();
    let script = "use plugin aa\nuse plugin bb\n\
        from range(1, 2) | derive a = aa.double(value), b = bb.double(value)";
    let (rows, report) = project.run(script).unwrap();
    assert_eq!(rows, ["Int(1) Int(2) Int(2)", "Int(2) Int(4) Int(4)"]);
    let used: Vec<_> = report.plugins.iter().map(|used| used.name.as_str()).collect();
    assert_eq!(used, ["aa.double", "bb.double"]);
    let wrong = project.run(&script.replace("bb.double(value)", "bb.double(\"x\")"));
    let wrong = wrong.unwrap_err().to_string();
    assert!(wrong.contains("bb.double") && !wrong.contains("`aa"), "{wrong}");
}

#[test]
fn a_changed_plugin_that_could_not_be_loaded_says_both() {
    let project = Project::new().locked();
    let whole = fs::read(project.library()).unwrap();
    let mut machine = whole.clone();
    machine[18..20].copy_from_slice(&8u16.to_le_bytes());
    for (bytes, why) in [
        (&whole[..whole.len() / 2], "is cut off"),
        (&machine, "is made for machine 8"),
        (b"no library", "is no library at all"),
    ] {
        fs::write(project.library(), bytes).unwrap();
        let refusal = project.refusal();
        let (status, listed, _) = project.cli(&["plugin", "list"]);
        assert_eq!(status, Some(1));
        for said in [refusal, listed] {
            assert!(
                said.contains("has changed; it could not be loaded anyway: ") && said.contains(why),
                "{said}"
            );
            // Trusting it as it is is no way out.
            assert!(
                !said.contains("trusts that") && said.contains("; then `standpipe plugin lock`"),
                "{said}"
            );
        }
        let (status, _, said) = project.cli(&["plugin", "lock"]);
        assert!(status == Some(1) && said.contains(why), "{said}");
    }
}

#[test]
fn a_path_out_of_the_project_is_refused_with_a_way_that_mends_it() {
    let outer = tempfile::tempdir().unwrap();
    let outer = outer.path().canonicalize().unwrap();
    let folder = outer.join("project");
    fs::create_dir(&folder).unwrap();
    let library = outer.join("libwords.so");
    compile(Path::new("tests/plugins/words.c"), &library, &[]);
    symlink(&outer, folder.join("out")).unwrap();
    let inside = folder.join("libwords.so");
    let ways = format!(
        "`cp {} {}` and `path = \"libwords.so\"` in `standpipe.toml`, or `path = \"{}\"`",
        library.display(),
        inside.display(),
        library.display()
    );
    let lock = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standpipe"));
        let output = command.args(["plugin", "lock"]).current_dir(&folder).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let says = |path: &str| {
        let text = format!("[plugins.words]\npath = \"{path}\"\n");
        fs::write(folder.join("standpipe.toml"), text).unwrap();
    };
    for path in ["../libwords.so", "out/libwords.so"] {
        says(path);
        let (status, said) = lock();
        assert!(status == Some(1) && said.contains(&ways), "{said}");
    }
    // Either mends it.
    says(text(&library));
    assert_eq!(lock().0, Some(0));
    fs::copy(&library, &inside).unwrap();
    says("libwords.so");
    assert_eq!(lock().0, Some(0));
}

#[test]
fn a_project_that_anyone_can_change_is_refused() {
    let project = Project::new().locked();
    for name in ["standpipe.toml", "standpipe.lock"] {
        let file = project.path(name);
        let before = fs::metadata(&file).unwrap().permissions();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        let listed = project.cli(&["plugin", "list"]);
        let locked = project.cli(&["plugin", "lock"]);
        for said in [project.refusal(), listed.1 + &listed.2, locked.2] {
            let said = said.replace(text(&project.0.path().canonicalize().unwrap()), "PROJECT");
            let why = format!("anyone on this machine can change `PROJECT/{name}`");
            assert!(
                said.contains(&why) && said.contains(&format!("help: `chmod o-w PROJECT/{name}`")),
                "{said}"
            );
        }
        assert_eq!((listed.0, locked.0), (Some(1), Some(1)));
        fs::set_permissions(&file, before).unwrap();
    }
    assert_eq!(project.cli(&["plugin", "list"]).0, Some(0));
}

#[test]
fn a_library_without_section_headers_works() {
    let folder = tempfile::tempdir().unwrap();
    for style in ["sysv", "gnu"] {
        let library = folder.path().join(format!("lib{style}.so"));
        compile(
            Path::new("tests/plugins/words.c"),
            &library,
            &[&format!("-Wl,--hash-style={style}")],
        );
        // What `sstrip` does: only what the loader reads is left.
        let mut bytes = fs::read(&library).unwrap();
        let headers = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
        bytes.truncate(usize::try_from(headers).unwrap());
        bytes[40..48].fill(0);
        bytes[58..64].fill(0);
        fs::write(&library, bytes).unwrap();
        let engine = Engine::builder().plugin(&library).build();
        let (rows, _) = rows(&engine, "use plugin words from range(1, 25) | words.count_up").unwrap();
        assert_eq!(rows, ["Int(10)", "Int(20)", "Int(-25)"], "{style}");
    }
}

#[test]
fn a_plugin_that_lies_about_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let said = |name: &str, fields: &str, stage: &str| {
        let (source, library) = (
            folder.path().join(format!("{name}.c")),
            folder.path().join(format!("lib{name}.so")),
        );
        let code = format!(
            "#include \"standpipe_plugin.h\"\n\
            static sp_status bind(const sp_stage *s, const sp_host *h, const sp_bind_in *in, sp_bind_out *out, sp_error *e) {{ \
            (void)s; (void)h; (void)in; (void)out; (void)e; return SP_E_CONFIG; }}\n\
            static sp_status create(void *b, const sp_call *c, uint32_t n, void **i, sp_error *e) {{ \
            (void)b; (void)c; (void)n; (void)i; (void)e; return SP_OK; }}\n\
            static sp_status process(void *i, const sp_call *c, struct ArrowArray *in, struct ArrowArray *out, sp_error *e) {{ \
            (void)i; (void)c; (void)in; (void)out; (void)e; return SP_OK; }}\n\
            static void destroy(void *i) {{ (void)i; }}\n\
            static const sp_stage x = {{{stage}}};\n\
            static const sp_stage *const stages[] = {{&x}};\n\
            static const sp_plugin p = {{{fields}}};\n\
            const sp_plugin *standpipe_plugin_entry_v1(void) {{ return &p; }}\n"
        );
        fs::write(&source, code).unwrap();
        compile(&source, &library, &["-Wno-unused-function", "-Wno-unused-variable"]);
        let script = format!("use plugin {name} from range(1, 3) | {name}.x");
        rows(&Engine::builder().plugin(&library).build(), &script)
            .unwrap_err()
            .to_string()
    };
    let good = "sizeof(sp_plugin), 1, 0, 1, \"x\", \"1.0.0\", \"\", \"\", stages, 0, 0, 0";
    let stage = |kind: &str, name: &str, params: &str, process: &str| {
        format!(
            "sizeof(sp_stage), {kind}, 0, 0, {name}, \"\", \"\", \"\", {params}, bind, 0, create, {process}, 0, 0, 0, destroy, 0"
        )
    };
    let x = stage("SP_TRANSFORM", "\"x\"", "0", "process");
    let all = [
        said("fine", good, &x),
        said("short", "8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0", &x),
        said("newer", "sizeof(sp_plugin), 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0", &x),
        said("missing", "sizeof(sp_plugin), 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0", &x),
        said("nameless", good, &stage("SP_TRANSFORM", "\"No Name\"", "0", "process")),
        said("helpless", good, &stage("SP_TRANSFORM", "\"x\"", "0", "0")),
        said("unkind", good, &stage("77", "\"x\"", "0", "process")),
        said(
            "params",
            good,
            &stage("SP_TRANSFORM", "\"x\"", "\"{\\\"itmes\\\": 1}\"", "process"),
        ),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn the_command_line_shows_locks_and_lists() {
    let project = Project::new();
    let without_hash = |text: &str| {
        let words = text.split(' ').map(|word| match word.trim_end().len() {
            64 => "HASH",
            _ => word,
        });
        words.collect::<Vec<_>>().join(" ")
    };
    let mut all = vec![];
    let mut call = |arguments: &[&str]| {
        let (status, out, err) = project.cli(arguments);
        let status = status.unwrap_or(-1);
        all.push(format!(
            "$ standpipe {}\n{}{err}(status {status})\n",
            arguments.join(" "),
            without_hash(&out)
        ));
    };
    call(&["plugin", "inspect", "libwords.so"]);
    call(&["plugin", "inspect", "nothing.so"]);
    call(&["plugin", "list"]);
    call(&["plugin", "lock", "--check"]);
    call(&["plugin", "lock"]);
    call(&["plugin", "lock"]);
    call(&["plugin", "list"]);
    fs::write(project.path("other.so"), "no library").unwrap();
    project.says("[plugins.words]\npath = \"libwords.so\"\n\n[plugins.other]\npath = \"other.so\"\n");
    call(&["plugin", "lock"]);
    call(&["plugin", "list"]);
    project.says("");
    call(&["plugin", "lock"]);
    insta::assert_snapshot!(all.join("\n"));
}

/// Does what `plugin new` prints, to the letter, in a shell.
fn follow_the_hints(name: &str, language: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_standpipe"));
    let path = format!(
        "{}:{}",
        text(program.parent().unwrap()),
        std::env::var("PATH").unwrap_or_default()
    );
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-ec", script])
            .current_dir(folder.path())
            .env("PATH", &path);
        // The plugin is a project of its own: it must not be built as this one is.
        command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
        let output = command.output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}\n{err}");
        String::from_utf8(output.stdout).unwrap()
    };
    let hints = shell(&format!("standpipe plugin new {name} --lang {language}"));
    assert!(hints.starts_with(&format!("cd {name}\n")), "{hints}");
    let out = shell(&hints);
    let again = Command::new(program)
        .args(["plugin", "new", name])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(2), "what is there is not overwritten");
    out
}

#[test]
fn a_new_plugin_in_c_works_by_its_hints() {
    let out = follow_the_hints("doubler", "c");
    assert!(out.ends_with("n,twice\n1,2\n21,42\n,\n"), "{out}");
}

#[test]
fn a_new_plugin_in_rust_works_by_its_hints() {
    let out = follow_the_hints("greeter", "rust");
    assert!(out.contains("2 passed"), "{out}");
    let want = "name,n,twice,greeting\nAda,1,2,\"Good morning, Ada\"\nGrace,21,42,\"Good morning, Grace\"\n";
    assert!(out.ends_with(want), "{out}");
}

#[test]
fn a_name_that_scripts_cannot_say_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["Geo", "1st", "a-b", "", "../x", "let", "read", "true"] {
        let output = Command::new(env!("CARGO_BIN_EXE_standpipe"))
            .args(["plugin", "new", name])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The plugin `words` as a later header would make it: longer structs, a later minor version, and `flags` that nobody knows yet.
fn later(flags: &str) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("later.c"), folder.path().join("liblater.so"));
    let now = fs::read_to_string("tests/plugins/words.c").unwrap();
    let later = now
        .replace("sizeof(sp_stage)", "sizeof(sp_stage) + 64")
        .replace("sizeof(sp_plugin)", "sizeof(sp_plugin) + 64")
        .replace("SP_ABI_MINOR", "9")
        .replace("\"abi\\\": [1, 0]", "\"abi\\\": [1, 9]")
        .replace(
            "out->parallelism = SP_PAR_SERIAL;",
            &format!("out->parallelism = SP_PAR_SERIAL; out->flags = {flags};"),
        );
    assert_eq!(later.matches("+ 64").count(), 4);
    assert!(later.contains("[1, 9]") && later.contains(flags));
    fs::write(&source, later).unwrap();
    compile(&source, &library, &[]);
    let engine = Engine::builder().plugin(&library).build();
    let outcome = rows(&engine, "use plugin words from range(1, 12) | words.count_up");
    outcome.map(|(rows, _)| rows).map_err(|error| error.to_string())
}

#[test]
fn a_plugin_of_a_later_header_works_unless_it_must_be_understood() {
    assert_eq!(later("1u << 12").unwrap(), ["Int(10)", "Int(-12)"]);
    let refused = later("1u << 25").unwrap_err();
    assert!(
        refused.contains("E0804") && refused.contains("it needs a newer Standpipe (flags 0x2000000)"),
        "{refused}"
    );
}

#[test]
fn the_report_says_what_each_function_and_stage_took() {
    let project = Project::new().locked();
    let script = "use plugin words from range(1, 20) | derive d = words.double(value) | words.count_up";
    let (status, _, err) = project.cli(&["run", "-e", script, "--report", "report.json"]);
    assert_eq!(status, Some(0), "{err}");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(project.path("report.json")).unwrap()).unwrap();
    let [double, count] = report["plugins"].as_array().unwrap().as_slice() else {
        panic!("{report}")
    };
    assert_eq!(
        (&double["name"], &double["rows_in"], &double["rows_out"]),
        (&"words.double".into(), &20.into(), &20.into())
    );
    assert_eq!(
        (&count["name"], &count["rows_in"], &count["rows_out"]),
        (&"words.count_up".into(), &20.into(), &3.into())
    );
    assert_eq!(count["peak_bytes"], 1000);
    assert!(double["seconds"].as_f64().unwrap() > 0.0);
    // A run without plugins says nothing of them.
    let (_, _, _) = project.cli(&["run", "-e", "from range(1, 2)", "--report", "plain.json"]);
    let plain: serde_json::Value = serde_json::from_slice(&fs::read(project.path("plain.json")).unwrap()).unwrap();
    assert!(plain.get("plugins").is_none());
}
