//! Events as lines, into a file, a pipe or anything else that takes bytes.
//!
//! A batch is one buffer, written and flushed by a thread of its own: a reader that is slow, or has stopped reading, holds up
//! nobody but the batch, and a batch whose handler is dropped meanwhile is still written to its end, so that no line is
//! broken off in the middle.

use std::io::Write;
use std::sync::mpsc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::json::{Form, write_event, write_timestamp};
use super::{ChangesHandler, Error};
use crate::events::HandlerError;
use crate::model::{Changes, Event};

/// A line `<timestamp>: <table> <operation>` for each event.
///
/// Control characters in a table's name, such as a line break, are escaped as JSON does it: a line is one event.
pub struct Lines {
    writer: Writer,
    form: Form,
}

impl Lines {
    /// Lines into `writer`, which errors call `to`. Of the form, only whether times have milliseconds counts.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn new(to: &str, writer: impl Write + Send + 'static, form: Form) -> Result<Self, Error> {
        Ok(Self { writer: Writer::start(to, writer)?, form })
    }
}

impl ChangesHandler for Lines {
    fn handle_changes<'a>(&'a mut self, changes: &'a Changes) -> BoxFuture<'a, Result<(), HandlerError>> {
        let form = self.form;
        self.writer.write(changes, move |text, event| write_line(text, event, &form))
    }
}

fn write_line(text: &mut Vec<u8>, event: &Event, form: &Form) {
    write_timestamp(text, event.ts_ms, form.subseconds);
    text.extend_from_slice(b": ");
    let mut utf8 = [0; 4];
    for character in event.table.name.chars() {
        if character.is_control() {
            text.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
        } else {
            text.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
        }
    }
    text.push(b' ');
    text.extend_from_slice(event.operation.word().as_bytes());
}

/// A line of JSON for each event; see [`super::json`].
pub struct JsonLines {
    writer: Writer,
    form: Form,
}

impl JsonLines {
    /// Lines of JSON into `writer`, which errors call `to`.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn new(to: &str, writer: impl Write + Send + 'static, form: Form) -> Result<Self, Error> {
        Ok(Self { writer: Writer::start(to, writer)?, form })
    }
}

impl ChangesHandler for JsonLines {
    fn handle_changes<'a>(&'a mut self, changes: &'a Changes) -> BoxFuture<'a, Result<(), HandlerError>> {
        let form = self.form;
        self.writer.write(changes, move |text, event| write_event(text, event, &form))
    }
}

/// A batch to write, and whom to tell.
struct Job {
    text: Vec<u8>,
    written: oneshot::Sender<std::io::Result<()>>,
}

/// The thread that writes. It ends with its handler, once what it was given is written.
struct Writer {
    to: String,
    /// Never holds more than one: the batch before is waited for.
    jobs: mpsc::Sender<Job>,
    /// The answer for a batch that was handed over.
    pending: Option<oneshot::Receiver<std::io::Result<()>>>,
}

impl Writer {
    fn start(to: &str, mut writer: impl Write + Send + 'static) -> Result<Self, Error> {
        let (jobs, work) = mpsc::channel::<Job>();
        let run = move || {
            for Job { text, written } in work {
                let result = writer.write_all(&text).and_then(|()| writer.flush());
                // Nobody waits where the handler was dropped: the batch is not acknowledged, and comes again.
                let _ = written.send(result);
            }
        };
        let thread = std::thread::Builder::new().name("events-writer".to_owned()).spawn(run);
        thread.map_err(|source| Error::Thread { source })?;
        Ok(Self { to: to.to_owned(), jobs, pending: None })
    }

    fn write<'a>(
        &'a mut self,
        changes: &Changes,
        line: impl Fn(&mut Vec<u8>, &Event),
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        let mut text = Vec::new();
        for event in &changes.events {
            line(&mut text, event);
            text.push(b'\n');
        }
        async move {
            if let Some(earlier) = self.pending.as_mut() {
                // What became of it is told by the next write: what cannot be written once mostly cannot be again.
                let _ = earlier.await;
            }
            let gone = || Error::WriterGone { to: self.to.clone() };
            let (written, answer) = oneshot::channel();
            self.jobs.send(Job { text, written }).map_err(|_| gone())?;
            let answer = self.pending.insert(answer).await;
            self.pending = None;
            let result = answer.map_err(|_| gone())?;
            Ok(result.map_err(|source| Error::Write { to: self.to.clone(), source })?)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::model::{Epoch, EventTable, Fault, Operation, Value};
    use crate::sqlite::said;

    fn changes(tables: &[&str]) -> Changes {
        let event = |(at, name): (usize, &&str)| Event {
            table: Arc::new(EventTable { name: (*name).to_owned(), columns: vec!["a".into()] }),
            seq: i64::try_from(at).expect("few"),
            ts_ms: 1_999,
            operation: Operation::Delete,
            before: Some(vec![Value::Integer(1)]),
            after: None,
        };
        Changes { id: "1".into(), epoch: Epoch(1), events: tables.iter().enumerate().map(event).collect() }
    }

    /// Takes so many bytes, and fails then.
    #[derive(Clone, Default)]
    struct Pipe {
        taken: Arc<Mutex<Vec<u8>>>,
        room: Option<usize>,
        flushed: Arc<Mutex<usize>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut taken = self.taken.lock().expect("not poisoned");
            let room = self.room.map_or(bytes.len(), |room| room - taken.len());
            if room == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            taken.extend_from_slice(&bytes[..room.min(bytes.len())]);
            Ok(room.min(bytes.len()))
        }

        fn flush(&mut self) -> io::Result<()> {
            *self.flushed.lock().expect("not poisoned") += 1;
            Ok(())
        }
    }

    impl Pipe {
        fn text(&self) -> String {
            String::from_utf8(self.taken.lock().expect("not poisoned").clone()).expect("text")
        }
    }

    #[tokio::test]
    async fn an_event_is_a_line_whatever_its_table_is_called() {
        let pipe = Pipe::default();
        let mut lines = Lines::new("a pipe", pipe.clone(), Form::default()).expect("starts");
        lines.handle_changes(&changes(&["t", "my: table", "a\nb\u{85}ü"])).await.expect("written");
        let wanted = "1970-01-01T00:00:01.999Z: t DELETE\n1970-01-01T00:00:01.999Z: my: table DELETE\n\
                      1970-01-01T00:00:01.999Z: a\\u000ab\\u0085ü DELETE\n";
        assert_eq!(pipe.text(), wanted);
        assert_eq!(*pipe.flushed.lock().expect("not poisoned"), 1, "a batch is flushed before it counts as taken");
    }

    #[tokio::test]
    async fn whole_seconds_cut_off_what_follows_them() {
        let pipe = Pipe::default();
        let form = Form { subseconds: false, ..Form::default() };
        Lines::new("", pipe.clone(), form).expect("starts").handle_changes(&changes(&["t"])).await.expect("written");
        assert_eq!(pipe.text(), "1970-01-01T00:00:01Z: t DELETE\n");
    }

    #[tokio::test]
    async fn a_closed_pipe_is_an_error_that_says_so() {
        let pipe = Pipe { room: Some(150), ..Pipe::default() };
        let mut json = JsonLines::new("the pipe", pipe.clone(), Form::default()).expect("starts");
        json.handle_changes(&changes(&["t"])).await.expect("there is room");
        let error = json.handle_changes(&changes(&["t"])).await.expect_err("closed");
        let error = error.downcast::<Error>().expect("ours");
        assert_eq!(said(&*error), "write events to the pipe: broken pipe");
        assert_eq!((error.fault(), error.code()), (Fault::Halt, "output"));
    }

    /// Says when it is in the middle of a write, and goes on when told.
    struct Slow {
        writing: mpsc::Sender<()>,
        go_on: mpsc::Receiver<()>,
        pipe: Pipe,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.writing.send(());
            let _ = self.go_on.recv();
            self.pipe.write(&bytes[..bytes.len().min(10)])
        }

        fn flush(&mut self) -> io::Result<()> {
            self.pipe.flush()
        }
    }

    #[tokio::test]
    async fn a_batch_whose_handler_is_dropped_is_written_to_its_end_and_before_the_next() {
        let ((writing, began), (on, go_on), pipe) = (mpsc::channel(), mpsc::channel(), Pipe::default());
        let mut lines = Lines::new("", Slow { writing, go_on, pipe: pipe.clone() }, Form::default()).expect("starts");
        let first = changes(&["first"]);
        let dropped = lines.handle_changes(&first).now_or_never();
        assert!(dropped.is_none(), "nothing is written yet");
        began.recv().expect("the thread writes");
        drop(on);
        lines.handle_changes(&changes(&["second"])).await.expect("written");
        let text = pipe.text();
        let (first, second) = text.split_once('\n').expect("two lines");
        assert!(first.ends_with("first DELETE") && second.ends_with("second DELETE\n"), "{text}");
    }
}
