//! Programs on ext4 and XFS through the page cache, with no DAX file anywhere.

#![no_main]

pinfuzz_fuzz::guest_target!("pagecache");
