//! `job.split` and `job.splitmetainfo`: which lines each map task gets, in Hadoop's own format.
//!
//! It is what `JobSplitWriter` writes for `NLineInputFormat`. That format takes a line to belong to the split
//! that holds the byte before it, so every split but the first begins one byte early.

/// The class that Hadoop reads a split by.
const CLASS: &str = "org.apache.hadoop.mapred.FileSplit";

/// Both files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Splits {
    /// `job.split`.
    pub(crate) split: Vec<u8>,
    /// `job.splitmetainfo`.
    pub(crate) meta: Vec<u8>,
    /// Map tasks.
    pub(crate) maps: usize,
}

/// Cuts the lines of the file at `uri` into map tasks of `lines_per_map` each.
pub(crate) fn encode(uri: &str, text: &[u8], lines_per_map: usize) -> Splits {
    let mut split = b"SPL\0\0\0\x01".to_vec();
    let mut infos = Vec::new();
    let (mut maps, mut offset) = (0, 0);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    for group in lines.chunks(lines_per_map.max(1)) {
        let length: usize = group.iter().map(|line| line.len()).sum();
        vlong(&mut infos, 0);
        vlong(&mut infos, split.len() as i64);
        vlong(&mut infos, length as i64);
        string(&mut split, CLASS);
        string(&mut split, uri);
        let (start, bytes) = if offset == 0 { (0, length - 1) } else { (offset - 1, length) };
        split.extend_from_slice(&(start as i64).to_be_bytes());
        split.extend_from_slice(&(bytes as i64).to_be_bytes());
        offset += length;
        maps += 1;
    }
    let mut meta = b"META-SPL".to_vec();
    vlong(&mut meta, 1);
    vlong(&mut meta, maps as i64);
    meta.extend(infos);
    Splits { split, meta, maps }
}

/// Hadoop's `WritableUtils.writeVLong` of what is not negative.
fn vlong(out: &mut Vec<u8>, n: i64) {
    if n <= 127 {
        out.push(n as u8);
        return;
    }
    let bytes = n.to_be_bytes();
    let used = &bytes[n.leading_zeros() as usize / 8..];
    out.push((-112 - used.len() as i64) as u8);
    out.extend_from_slice(used);
}

/// Hadoop's `Text.writeString`.
fn string(out: &mut Vec<u8>, text: &str) {
    vlong(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `services`' sketch of a submission wrote, which Hadoop took.
    #[test]
    fn bytes_that_hadoop_takes() {
        let head = "53504c00000001";
        let name =
            "226f72672e6170616368652e6861646f6f702e6d61707265642e46696c6553706c69740a686466733a2f2f6e2f6c";
        let range = |start: u64, bytes: u64| format!("{name}{start:016x}{bytes:016x}");
        let long = [[b'x'; 300].as_slice(), b"\n"].concat().repeat(2);
        let rows: [(&[u8], usize, String, &str); 4] = [
            (
                b"aa\nbbb\nc\n",
                1,
                [range(0, 2), range(2, 4), range(6, 2)].concat(),
                "4d4554412d53504c0103000703004504008f8302",
            ),
            (b"aa\nbbb\nc\n", 2, [range(0, 6), range(6, 2)].concat(), "4d4554412d53504c0102000707004502"),
            (b"aa\nbbb\nc\n", 9, range(0, 8), "4d4554412d53504c0101000709"),
            (&long, 1, [range(0, 300), range(300, 301)].concat(), "4d4554412d53504c010200078e012d00458e012d"),
        ];
        for (text, lines_per_map, ranges, meta) in rows {
            let found = encode("hdfs://n/l", text, lines_per_map);
            assert_eq!(hex(&found.split), format!("{head}{ranges}"), "{lines_per_map}");
            assert_eq!(hex(&found.meta), meta, "{lines_per_map}");
            assert_eq!(found.maps, ranges.len() / range(0, 0).len());
        }
    }

    #[test]
    fn numbers() {
        let rows = [
            (0, "00"),
            (127, "7f"),
            (128, "8f80"),
            (255, "8fff"),
            (256, "8e0100"),
            (65_536, "8d010000"),
            (1 << 40, "8a010000000000"),
        ];
        for (n, expected) in rows {
            let mut out = Vec::new();
            vlong(&mut out, n);
            assert_eq!(hex(&out), expected, "{n}");
        }
    }

    fn hex(bytes: &[u8]) -> String {
        base16ct::lower::encode_string(bytes)
    }
}
