//! What a process takes of its machine, under the name that Prometheus' own clients use.

/// Physical memory that the process holds.
const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";

/// Looks now, so that a scrape shows the present and nothing has to be woken up in between.
pub(crate) fn measure() {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!(RESIDENT_MEMORY).set(bytes as f64);
    }
}

/// `None` where the kernel does not tell, as on anything but Linux.
fn resident_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Reads `VmRSS` of proc_pid_status(5), which is in KiB.
fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tclipmesh\nVmPeak:\t  999 kB\nVmRSS:\t  123456 kB\nThreads:\t9\n";
        assert_eq!(parse(status), Some(123_456 * 1024), "the resident size");
        assert_eq!(parse("Name:\tclipmesh\n"), None, "a kernel thread has none");
    }
}
