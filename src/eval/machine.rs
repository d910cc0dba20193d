//! The machine and this process, as Linux tells them in `/proc`; nothing where there is none.

use std::fs::read_to_string;

/// The most memory in bytes that this process had resident at a time, mapped files included.
pub fn peak_memory() -> Option<u64> {
    kibibytes(&read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The memory in bytes that this process has resident now, mapped files included.
pub fn resident_memory() -> Option<u64> {
    kibibytes(&read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The processor's name.
pub fn processor() -> Option<String> {
    model_name(&read_to_string("/proc/cpuinfo").ok()?)
}

/// Mean number of processes that wanted to run in the last minute.
pub fn load_average() -> Option<f64> {
    read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// `VmHWM:     1234 kB`
fn kibibytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes << 10)
}

/// `model name : AMD EPYC`
fn model_name(cpuinfo: &str) -> Option<String> {
    let (_, name) = cpuinfo.lines().find_map(|line| {
        line.split_once(':').filter(|(key, _)| matches!(key.trim(), "model name" | "Model"))
    })?;
    Some(name.trim().to_string()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\thydit\nVmPeak:\t  9000 kB\nVmHWM:\t  1234 kB\nVmRSS:\t 12 kB\n";
        assert_eq!(kibibytes(status, "VmHWM:"), Some(1234 * 1024));
        assert_eq!(kibibytes(status, "VmRSS:"), Some(12 * 1024));
        assert_eq!(kibibytes("Name:\thydit\n", "VmHWM:"), None);
    }

    #[test]
    fn the_processor_is_called_by_its_name() {
        let table = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nmodel name\t: B\n";
        assert_eq!(model_name(table).as_deref(), Some("AMD EPYC"));
        assert_eq!(model_name("processor : 0\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_was_used_once_stays_in_the_peak() {
        const BLOCK: u64 = 64 << 20;
        let before = resident_memory().expect("Linux tells it");
        drop(std::hint::black_box(vec![1u8; BLOCK as usize]));
        // The kernel counts pages in batches: a MiB may be missing.
        assert!(peak_memory().expect("Linux tells it") > before + BLOCK - (1 << 20));
    }
}
