//! Lets clients in whose `:authority` on a unix socket is the socket's path.
//!
//! CloudQuery's CLI, and grpcio with a `unix:` target, send the percent-encoded path (`%2Ftmp%2Fcq.sock`) as `:authority`.
//! That is no authority, and the HTTP/2 library under our server resets every such request before anybody is asked. So on
//! unix sockets, and only there, a [`Shim`] stands between socket and server: it follows the frames that the client
//! sends, and in the header blocks makes a name of that value, of the same length (see [`super::hpack`] for why), in which
//! everything that a name cannot have is `-`. Nothing else is changed, and what the server sends is not looked at.
//!
//! Where the bytes are not what a client sends, the shim steps aside for the rest of the connection: the library
//! behind it refuses them as it always does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

use super::hpack::Blocks;

/// What a client sends before its first frame: `PRI * HTTP/2.0…`.
const PREFACE_BYTES: usize = 24;

const FRAME_HEAD_BYTES: usize = 9;

/// The largest frame that the server takes, as no SETTINGS of ours say otherwise.
const FRAME_BYTES_MAX: usize = 16_384;

/// The longest header block that is looked at, frames' heads included. The server takes 16 KiB of headers.
const BLOCK_BYTES_MAX: usize = 256 << 10;

/// How much is read at once.
const READ_BYTES: usize = 16 << 10;

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// A name of the same length for what cannot be one; `None` for what may stay.
fn name_for(authority: &[u8]) -> Option<Vec<u8>> {
    if !authority.iter().any(|byte| matches!(byte, b'%' | b'/')) {
        return None;
    }
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    Some(authority.iter().map(|byte| if fits(byte) { *byte } else { b'-' }).collect())
}

/// A client's frames, with the names changed.
struct Rewriter {
    state: State,
    blocks: Blocks,
    /// What has come of the frame, or of the header block's frames, that is not whole yet; unchanged.
    held: Vec<u8>,
    /// The block's first frame; and the fragments so far.
    open: Option<Open>,
}

enum State {
    /// This many bytes are none of ours.
    Pass(usize),
    /// A frame of which `held` from here on is the beginning.
    Frame(usize),
    /// Nothing is looked at any more.
    Aside,
}

struct Open {
    stream: [u8; 4],
    flags: u8,
    priority: Vec<u8>,
    block: Vec<u8>,
}

/// What the bytes are not: the rewriter steps aside.
struct Odd;

impl Rewriter {
    fn new() -> Self {
        Self { state: State::Pass(PREFACE_BYTES), blocks: Blocks::default(), held: Vec::new(), open: None }
    }

    /// Takes what the client sent next, and appends to `out` what the server is to read.
    fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            match self.state {
                State::Aside => return out.extend_from_slice(bytes),
                State::Pass(count) => {
                    let (pass, rest) = bytes.split_at(count.min(bytes.len()));
                    out.extend_from_slice(pass);
                    bytes = rest;
                    self.state = if pass.len() < count { State::Pass(count - pass.len()) } else { State::Frame(0) };
                }
                State::Frame(start) => {
                    let want = self.missing(start);
                    let (take, rest) = bytes.split_at(want.min(bytes.len()));
                    self.held.extend_from_slice(take);
                    bytes = rest;
                    if self.step(start, out).is_err() {
                        out.append(&mut self.held);
                        (self.state, self.open) = (State::Aside, None);
                    }
                }
            }
        }
    }

    /// How many bytes the frame at `start` lacks: of its head first, then of its whole.
    fn missing(&self, start: usize) -> usize {
        let has = self.held.len() - start;
        let wants = if has < FRAME_HEAD_BYTES { FRAME_HEAD_BYTES } else { FRAME_HEAD_BYTES + self.payload_len(start) };
        wants - has
    }

    fn payload_len(&self, start: usize) -> usize {
        let head = &self.held[start..];
        usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
    }

    fn step(&mut self, start: usize, out: &mut Vec<u8>) -> Result<(), Odd> {
        let has = self.held.len() - start;
        if has < FRAME_HEAD_BYTES {
            return Ok(());
        }
        let (kind, payload_len) = (self.held[start + 3], self.payload_len(start));
        let is_block = kind == if self.open.is_some() { CONTINUATION } else { HEADERS };
        if !is_block {
            // Between the frames of a block there is nothing else, and no block begins in its middle.
            if self.open.is_some() || kind == CONTINUATION {
                return Err(Odd);
            }
            out.append(&mut self.held);
            self.state = if payload_len > 0 { State::Pass(payload_len) } else { State::Frame(0) };
            return Ok(());
        }
        if payload_len > FRAME_BYTES_MAX || start + payload_len > BLOCK_BYTES_MAX {
            return Err(Odd);
        }
        if has < FRAME_HEAD_BYTES + payload_len {
            return Ok(());
        }
        self.fragment(start)?;
        self.state = State::Frame(self.held.len());
        if self.held[start + 4] & END_HEADERS != 0 {
            self.finish(out)?;
            self.state = State::Frame(0);
        }
        Ok(())
    }

    /// Adds a whole frame's fragment to the open block, or opens one with it.
    fn fragment(&mut self, start: usize) -> Result<(), Odd> {
        let (head, payload) = self.held[start..].split_at(FRAME_HEAD_BYTES);
        let stream = [head[5], head[6], head[7], head[8]];
        if let Some(open) = &mut self.open {
            if open.stream != stream {
                return Err(Odd);
            }
            open.block.extend_from_slice(payload);
            return Ok(());
        }
        let flags = head[4];
        let (pad_len, rest) = match payload.split_first() {
            Some((pad_len, rest)) if flags & PADDED != 0 => (usize::from(*pad_len), rest),
            None if flags & PADDED != 0 => return Err(Odd),
            _ => (0, payload),
        };
        let unpadded = &rest[..rest.len().checked_sub(pad_len).ok_or(Odd)?];
        let priority_len = if flags & PRIORITY != 0 { PRIORITY_BYTES } else { 0 };
        let (priority, block) = unpadded.split_at_checked(priority_len).ok_or(Odd)?;
        self.open = Some(Open { stream, flags, priority: priority.to_vec(), block: block.to_vec() });
        Ok(())
    }

    /// The block is whole: sends it on, as it was or in frames of its own.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Odd> {
        let open = self.open.take().ok_or(Odd)?;
        match self.blocks.walk(&open.block, name_for).map_err(|_| Odd)? {
            None => out.append(&mut self.held),
            Some(block) => {
                self.held.clear();
                open.write(&block, out);
            }
        }
        Ok(())
    }
}

impl Open {
    /// The frames of a block in place of its own: without padding, and as many as it takes.
    fn write(&self, block: &[u8], out: &mut Vec<u8>) {
        let (first, mut rest) = block.split_at(block.len().min(FRAME_BYTES_MAX - PRIORITY_BYTES));
        let flags = |flags: u8, is_last: bool| if is_last { flags | END_HEADERS } else { flags & !END_HEADERS };
        let kept = self.flags & !PADDED;
        self.frame(HEADERS, flags(kept, rest.is_empty()), &[&self.priority, first], out);
        while !rest.is_empty() {
            let (next, after) = rest.split_at(rest.len().min(FRAME_BYTES_MAX));
            self.frame(CONTINUATION, flags(0, after.is_empty()), &[next], out);
            rest = after;
        }
    }

    fn frame(&self, kind: u8, flags: u8, payload: &[&[u8]], out: &mut Vec<u8>) {
        let len: usize = payload.iter().map(|part| part.len()).sum();
        let len = u32::try_from(len).expect("no longer than FRAME_BYTES_MAX").to_be_bytes();
        out.extend_from_slice(&len[1..]);
        out.extend_from_slice(&[kind, flags]);
        out.extend_from_slice(&self.stream);
        out.extend(payload.iter().copied().flatten());
    }
}

/// A unix socket whose client may say what it likes as `:authority`.
pub(super) struct Shim {
    inner: UnixStream,
    rewriter: Rewriter,
    /// What the server has still to read, from `read` on.
    ready: Vec<u8>,
    read: usize,
}

impl Shim {
    pub(super) fn new(inner: UnixStream) -> Self {
        Self { inner, rewriter: Rewriter::new(), ready: Vec::new(), read: 0 }
    }
}

impl AsyncRead for Shim {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.read == this.ready.len() {
            this.ready.clear();
            this.read = 0;
            let mut bytes = [0; READ_BYTES];
            let mut chunk = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                // The end. A frame that is not whole is nothing to anybody.
                return Poll::Ready(Ok(()));
            }
            this.rewriter.push(chunk.filled(), &mut this.ready);
        }
        let count = buf.remaining().min(this.ready.len() - this.read);
        buf.put_slice(&this.ready[this.read..this.read + count]);
        this.read += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Shim {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Connected for Shim {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let open = Open { stream: [0, 0, 0, stream], flags: 0, priority: Vec::new(), block: Vec::new() };
        let mut out = Vec::new();
        open.frame(kind, flags, &[payload], &mut out);
        out
    }

    /// `:method: POST`, and an authority that is spelled out and kept.
    fn block(authority: &str) -> Vec<u8> {
        let len = u8::try_from(authority.len()).expect("short");
        [&[0x83, 0x41, len], authority.as_bytes()].concat()
    }

    /// Every way to cut the bytes must come to the same.
    #[track_caller]
    fn check(frames: &[Vec<u8>], expected: &[Vec<u8>]) {
        let (sent, expected) = ([PREFACE, &frames.concat()].concat(), [PREFACE, &expected.concat()].concat());
        for size in [1, 2, 7, 9, 10, 64, sent.len()] {
            let (mut rewriter, mut out) = (Rewriter::new(), Vec::new());
            for chunk in sent.chunks(size) {
                rewriter.push(chunk, &mut out);
            }
            assert!(out == expected, "in chunks of {size}: {out:02x?} is not {expected:02x?}");
        }
    }

    #[test]
    fn the_path_becomes_a_name_of_the_same_length_and_the_rest_stays() {
        let (settings, data) = (frame(4, 0, 0, &[]), frame(0, 0, 1, b"%2F is data here"));
        check(
            &[settings.clone(), frame(HEADERS, 4, 1, &block("%2Ftmp%2Fcq.sock")), data.clone()],
            &[settings.clone(), frame(HEADERS, 4, 1, &block("-2Ftmp-2Fcq.sock")), data.clone()],
        );
        let untouched = [settings, frame(HEADERS, 4, 1, &block("localhost:7777")), data];
        check(&untouched, &untouched);
    }

    #[test]
    fn padding_priority_and_continuations_are_followed() {
        let (old, new) = (block("/tmp/cq.sock"), block("-tmp-cq.sock"));
        let padded = [&[3, 0, 0, 0, 0, 16][..], &old, &[0, 0, 0]].concat();
        let unpadded = [&[0, 0, 0, 0, 16][..], &new].concat();
        check(
            &[frame(HEADERS, END_HEADERS | PADDED | PRIORITY | 1, 5, &padded)],
            &[frame(HEADERS, END_HEADERS | PRIORITY | 1, 5, &unpadded)],
        );
        let parts = [
            frame(HEADERS, 1, 5, &old[..2]),
            frame(CONTINUATION, 0, 5, &old[2..6]),
            frame(CONTINUATION, 0, 5, &[]),
            frame(CONTINUATION, END_HEADERS, 5, &old[6..]),
        ];
        check(&parts, &[frame(HEADERS, END_HEADERS | 1, 5, &new)]);
    }

    #[test]
    fn a_block_that_grows_beyond_a_frame_is_sent_in_two() {
        let filler = |len: usize| [vec![0x00, 1, b'x', 0x7f], varint(len - 127), vec![b'y'; len]].concat();
        let path = "%2F".repeat(30);
        let coded = super::super::huffman::encode(path.as_bytes());
        let len = u8::try_from(coded.len()).expect("short");
        assert!(coded.len() < path.len() && len < 0x7f, "a code is shorter, so the block grows");
        let old = [filler(16_300), vec![0x83, 0x41, 0x80 | len], coded].concat();
        assert!(old.len() <= FRAME_BYTES_MAX);
        let new = [filler(16_300), block(&path.replace('%', "-"))].concat();
        let (first, second) = new.split_at(FRAME_BYTES_MAX - PRIORITY_BYTES);
        check(
            &[frame(HEADERS, END_HEADERS, 1, &old)],
            &[frame(HEADERS, 0, 1, first), frame(CONTINUATION, END_HEADERS, 1, second)],
        );
    }

    fn varint(mut value: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while value > 0x7f {
            out.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
            value >>= 7;
        }
        out.push(u8::try_from(value).expect("seven bits"));
        out
    }

    #[test]
    fn what_no_client_sends_goes_through_as_it_is() {
        let good = frame(HEADERS, 4, 1, &block("/x"));
        for odd in [
            // A block that is cut off by another frame, one that nobody opened, another stream's, a bad one, a large one.
            vec![frame(HEADERS, 0, 1, &[0x83]), frame(0, 0, 1, b"x")],
            vec![frame(CONTINUATION, 4, 1, &[0x83])],
            vec![frame(HEADERS, 0, 1, &[0x83]), frame(CONTINUATION, 4, 3, &[0x83])],
            vec![frame(HEADERS, 4, 1, &[0x41, 0x05, b'a'])],
            vec![frame(HEADERS, 4 | PADDED, 1, &[9, 0x83])],
            vec![frame(HEADERS, 4 | PADDED, 1, &[])],
            vec![frame(HEADERS, 4 | PRIORITY, 1, &[0, 0])],
            vec![frame(HEADERS, 4, 1, &vec![0x83; FRAME_BYTES_MAX + 1])],
        ] {
            let frames = [odd, vec![good.clone()]].concat();
            check(&frames, &frames);
        }
    }

    #[test]
    fn a_block_without_an_end_is_not_held_for_ever() {
        let (mut rewriter, mut out) = (Rewriter::new(), Vec::new());
        rewriter.push(PREFACE, &mut out);
        rewriter.push(&frame(HEADERS, 0, 1, &[0x83]), &mut out);
        let more = frame(CONTINUATION, 0, 1, &vec![0x83; FRAME_BYTES_MAX]);
        for _ in 0..40 {
            rewriter.push(&more, &mut out);
            assert!(rewriter.held.len() <= BLOCK_BYTES_MAX + FRAME_BYTES_MAX + FRAME_HEAD_BYTES);
        }
        assert!(rewriter.held.is_empty() && out.len() > 40 * FRAME_BYTES_MAX);
    }
}
