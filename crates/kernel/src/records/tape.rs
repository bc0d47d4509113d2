//! Decoded bytes as one row, each with where it is stored, from which records are cut.

use crate::buffer::Buffer;
use crate::coverage::{Reason, Skip};
use crate::frames::{Event, Fault, Frames};
use crate::kind::Codec;
use crate::object::ReadAt;
use crate::{Error, Seam};
use std::collections::VecDeque;

/// Memory that is kept between records, in bytes.
const KEEP_BYTES: usize = 4 << 20;

pub(crate) struct Tape<'a> {
    frames: Frames<'a>,
    pub(crate) buf: Buffer,
    /// The next unread byte in `buf`.
    pub(crate) pos: usize,
    /// In a plain file, the stored offset of `buf[0]`.
    pub(crate) base: u64,
    pub(crate) members: VecDeque<Member>,
    /// How far the stored bytes had been consumed when the decoded ones reached to an index in `buf`.
    steps: VecDeque<(i64, u64)>,
    pub(crate) fault: Option<(u64, Fault)>,
    pub(crate) at_end: bool,
    /// Decoded bytes that are still to be passed over: what precedes the first record in its member, or the
    /// rest of an oversized record.
    pub(crate) discard: u64,
    has_members: bool,
}

pub(crate) struct Member {
    pub(crate) offset: u64,
    /// Where it begins in `buf`; negative once its head has been dropped.
    pub(crate) at: i64,
    /// Its stored end, once it is known.
    pub(crate) end: Option<u64>,
    /// Whether a record was read from it, so that a later fault in it does not take that back.
    pub(crate) read: bool,
}

impl<'a> Tape<'a> {
    pub(crate) fn new(object: &'a dyn ReadAt, size: u64, codec: Codec, begin: Seam) -> Tape<'a> {
        let frames = Frames::new(object, size, codec, begin.offset);
        Tape {
            has_members: frames.has_members(),
            frames,
            buf: Buffer::default(),
            pos: 0,
            base: begin.offset,
            members: VecDeque::new(),
            steps: VecDeque::new(),
            fault: None,
            at_end: false,
            discard: begin.skip,
        }
    }

    pub(crate) fn has_members(&self) -> bool {
        self.has_members
    }

    /// Decodes a little more. False where nothing more comes: the object's end or a fault.
    pub(crate) fn fill(&mut self) -> Result<bool, Error> {
        if self.at_end || self.fault.is_some() {
            return Ok(false);
        }
        match self.frames.next(&mut self.buf)? {
            Event::Member(offset) => {
                let at = self.buf.len() as i64;
                self.members.push_back(Member { offset, at, end: None, read: false });
            }
            Event::Data if self.has_members => {
                self.steps.push_back((self.buf.len() as i64, self.frames.offset()));
            }
            Event::Data => {}
            Event::MemberEnd(offset) => {
                if let Some(member) = self.members.back_mut() {
                    member.end = Some(offset);
                }
            }
            Event::Fault { start, fault } => {
                self.fault = Some((start, fault));
                return Ok(false);
            }
            Event::End => {
                self.at_end = true;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The stored bytes up to which a reader must fetch to decode all before `end`, which is at hand.
    pub(crate) fn stored_end(&self, end: usize) -> u64 {
        if !self.has_members {
            return self.base + end as u64;
        }
        let step = self.steps.iter().find(|(at, _)| *at >= end as i64);
        step.map_or(self.frames.offset(), |(_, offset)| *offset)
    }

    pub(crate) fn member_of(&self, index: usize) -> Option<usize> {
        self.members.iter().rposition(|m| m.at <= index as i64)
    }

    /// Where the decoded byte at `index` is stored.
    pub(crate) fn place(&self, index: usize) -> Seam {
        match self.member_of(index) {
            Some(m) => {
                let member = &self.members[m];
                Seam { offset: member.offset, skip: (index as i64 - member.at) as u64 }
            }
            None => Seam::at(self.base + index as u64),
        }
    }

    /// The stored offset up to which bytes have been consumed.
    pub(crate) fn offset(&self) -> u64 {
        if self.has_members { self.frames.offset() } else { self.base + self.pos as u64 }
    }

    /// Begins anew at a member, or a byte of a plain file.
    pub(crate) fn restart(&mut self, offset: u64) {
        self.frames.seek(offset);
        self.buf.clear();
        self.pos = 0;
        self.base = offset;
        self.members.clear();
        self.steps.clear();
        self.fault = None;
        self.at_end = false;
        self.discard = 0;
    }

    /// Passes over what is to be discarded; the rest of an oversized record comes back as a gap.
    pub(crate) fn pass_over(&mut self) -> Result<Option<Skip>, Error> {
        if self.discard == 0 {
            return Ok(None);
        }
        let from = self.offset();
        let begun = self.pos > 0;
        while self.discard > 0 {
            let at_hand = ((self.buf.len() - self.pos) as u64).min(self.discard);
            self.pos += at_hand as usize;
            self.discard -= at_hand;
            self.compact();
            if self.discard > 0 && !self.fill()? {
                self.discard = 0;
            }
        }
        let to = self.offset();
        Ok(begun.then(|| Skip::new(from, to.max(from) - from, Reason::RecordCap)))
    }

    /// Drops what has been read, now and then.
    pub(crate) fn compact(&mut self) {
        // To move what is left costs as much as it is: so only where at least as much goes.
        if self.pos == 0 || self.pos < self.buf.len() / 2 {
            return;
        }
        let dropped = self.pos;
        self.buf.drop_front(dropped, KEEP_BYTES);
        self.pos = 0;
        self.base += dropped as u64;
        for member in &mut self.members {
            member.at -= dropped as i64;
        }
        for step in &mut self.steps {
            step.0 -= dropped as i64;
        }
        while self.steps.front().is_some_and(|(at, _)| *at <= 0) {
            self.steps.pop_front();
        }
        // The member that holds the next byte stays: it says where that byte is stored.
        while self.members.len() > 1
            && self.members[1].at <= 0
            && (!self.buf.is_empty() || self.members[1].at < 0)
        {
            self.members.pop_front();
        }
    }
}
