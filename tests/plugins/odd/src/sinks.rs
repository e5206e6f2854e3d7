//! Sinks that write lines, and do at one of their calls what they should not do.

use standpipe_sdk::outlet::NewFile;
use standpipe_sdk::prelude::*;
use standpipe_sdk::{Code, Published};

/// Writes a number per line.
#[derive(Params)]
pub(crate) struct Lines {
    /// the file
    #[param(item)]
    path: String,
    /// the column with the numbers
    of: ColumnArg,
    /// what it does: nothing, panic, fail, abort, reject, note
    #[param(default = "nothing")]
    does: String,
    /// where: bind, open, write, finish, publish, discard
    #[param(default = "write")]
    at: String,
}

struct Open {
    file: NewFile,
    column: usize,
    rows: u64,
    does: String,
    at: String,
    sync: bool,
}

fn act(does: &str, at: &str, here: &str) -> Result<()> {
    match does {
        _ if at != here => Ok(()),
        "panic" => panic!("no {here}"),
        "fail" => Err(Error::failed(Code(805), format!("it does not {here}"))),
        "abort" => std::process::abort(),
        _ => Ok(()),
    }
}

impl Outlet for Lines {
    const NAME: &'static str = "lines";
    const EXAMPLES: &'static [Example] = &[Example {
        script: "use plugin odd\nfrom range(1, 3) | write odd.lines \"numbers.txt\", value",
        output: "",
    }];

    fn bind(self, call: &Call<'_>) -> Result<Opening, Vec<Complaint>> {
        self.of.must_be(call, &Type::Int)?;
        let Lines { path, of, does, at } = self;
        if let Err(error) = act(&does, &at, "bind") {
            return Err(vec![Complaint::new(Code(501), call.span, error.to_string(), "here")]);
        }
        let rejects = does == "reject";
        let opening = Opening::new(vec![of.at], move |setup| {
            let file = NewFile::beside(&setup.folder, &path)?.sync(setup.sync);
            act(&does, &at, "open")?;
            Ok(Box::new(Open {
                file,
                column: of.at,
                rows: 0,
                does: does.clone(),
                at: at.clone(),
                sync: setup.sync,
            }))
        });
        Ok(if rejects { opening.rejecting() } else { opening })
    }
}

impl Open {
    fn act(&self, here: &str) -> Result<()> {
        act(&self.does, &self.at, here)
    }
}

impl Output for Open {
    fn write(&mut self, batch: Batch<'_>, faults: &Faults<'_>) -> Result<()> {
        self.act("write")?;
        let column = batch.column(self.column);
        let Data::Int(numbers) = column.data() else {
            return Ok(());
        };
        for row in (0..batch.rows()).filter(|&row| column.is_valid(row)) {
            if self.does == "reject" && numbers[row] % 10 == 0 {
                faults.report(row, Code(805), None, format_args!("{} is too round", numbers[row]))?;
                continue;
            }
            self.file.write(format_args!("{}\n", numbers[row]))?;
            self.rows += 1;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.act("finish")?;
        self.file.finish()
    }

    fn publish(&mut self) -> Result<Vec<Published>> {
        self.act("publish")?;
        Ok(vec![self.file.publish(self.rows)?])
    }

    fn discard(&mut self) {
        self.file.discard();
        let _ = self.act("discard");
    }

    fn notes(&self) -> Vec<String> {
        match self.does.as_str() {
            "note" => vec![format!("it is written, sync {}", self.sync)],
            _ => vec![],
        }
    }
}

/// Keeps everything it gets.
#[derive(Params)]
pub(crate) struct Keeps;

struct Kept(Vec<Vec<u8>>);

impl Outlet for Keeps {
    const NAME: &'static str = "keeps";

    fn bind(self, _: &Call<'_>) -> Result<Opening, Vec<Complaint>> {
        Ok(Opening::new(vec![], |_| Ok(Box::new(Kept(vec![])))))
    }
}

impl Output for Kept {
    fn write(&mut self, batch: Batch<'_>, _: &Faults<'_>) -> Result<()> {
        self.0.push(vec![1; batch.rows() * 100]);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    fn publish(&mut self) -> Result<Vec<Published>> {
        Ok(vec![])
    }

    fn discard(&mut self) {}
}
