//! The call sites that a run passed, as they travel: ascending distances, each in as few bytes as it needs (LEB128).
//!
//! A program passes some thousand sites, which stand in clusters: a byte or two each.

/// The bytes of an ascending list without doubles.
pub fn encode(sites: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(sites.len() * 2);
    let mut last = 0;
    for site in sites {
        let mut distance = site - last;
        last = *site;
        while distance >= 0x80 {
            bytes.push(distance as u8 | 0x80);
            distance >>= 7;
        }
        bytes.push(distance as u8);
    }
    bytes
}

/// The list in `bytes`. Total: what is no ascending list without doubles is nothing.
pub fn decode(bytes: &[u8]) -> Option<Vec<u32>> {
    let mut sites = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    let mut last = 0u32;
    while !rest.as_slice().is_empty() {
        let (mut distance, mut shift) = (0u64, 0);
        loop {
            let byte = *rest.next()?;
            distance |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
            if shift > 28 {
                return None;
            }
        }
        if distance == 0 && !sites.is_empty() {
            return None;
        }
        last = last.checked_add(u32::try_from(distance).ok()?)?;
        sites.push(last);
    }
    Some(sites)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_travel() {
        for sites in [
            vec![],
            vec![0],
            vec![0, 1, 127, 128, 129, 16_511, 0x8100_0000, u32::MAX],
            vec![u32::MAX],
        ] {
            assert_eq!(decode(&encode(&sites)), Some(sites));
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        // Cut off; a double; past the end of the numbers; too long a number.
        for bytes in [
            &[0x80][..],
            &[5, 0],
            &[0xff, 0xff, 0xff, 0xff, 0x0f, 1],
            &[0xff, 0xff, 0xff, 0xff, 0x1f],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 1],
        ] {
            assert_eq!(decode(bytes), None, "{bytes:x?}");
        }
    }
}
