//! Two lanes: people before jobs.
//!
//! Whoever waits in front of a screen goes before whatever runs through a folder at night. Yet the
//! night must end: while both wait, every fifth turn is a job's.

/// Turns in a row that interactive work may take while bulk work waits. With more, bulk work loses
/// more than a fifth of the turns that it had alone; with fewer, people wait behind it more often.
const MOST_IN_A_ROW: u32 = 4;

/// Who is waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// A person, or a service on behalf of one.
    #[default]
    Interactive,
    /// A job, which is content if it ends some time.
    Bulk,
}

/// Says whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Turns that interactive work took while bulk work waited.
    in_a_row: u32,
}

impl Lane {
    pub(crate) const ALL: [Self; 2] = [Self::Interactive, Self::Bulk];

    /// The value of the label `lane` of metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }
}

impl Turns {
    /// Whose turn it would be, given whether anything waits in each lane.
    pub(crate) fn upcoming(&self, interactive: bool, bulk: bool) -> Option<Lane> {
        match (interactive, bulk) {
            (false, false) => None,
            (true, true) if self.in_a_row >= MOST_IN_A_ROW => Some(Lane::Bulk),
            (true, _) => Some(Lane::Interactive),
            (false, true) => Some(Lane::Bulk),
        }
    }

    /// Learns who took a turn, and whether bulk work waited then.
    pub(crate) fn taken(&mut self, lane: Lane, bulk_waited: bool) {
        self.in_a_row = match lane {
            Lane::Interactive if bulk_waited => self.in_a_row + 1,
            Lane::Interactive | Lane::Bulk => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(turns: &mut Turns, interactive: bool, bulk: bool) -> Option<Lane> {
        let lane = turns.upcoming(interactive, bulk)?;
        turns.taken(lane, bulk);
        Some(lane)
    }

    #[test]
    fn people_go_first_and_jobs_still_get_every_fifth_turn() {
        let mut turns = Turns::default();
        let order: Vec<_> = (0..10).map(|_| take(&mut turns, true, true)).collect();
        let bulk: Vec<_> = (0..10).filter(|&i| order[i] == Some(Lane::Bulk)).collect();
        assert_eq!(bulk, [4, 9], "two of ten");
    }

    #[test]
    fn only_turns_that_a_job_waited_for_are_counted() {
        let mut turns = Turns::default();
        for _ in 0..20 {
            assert_eq!(take(&mut turns, true, false), Some(Lane::Interactive), "nobody else");
        }
        assert_eq!(take(&mut turns, true, true), Some(Lane::Interactive), "the first in a row");
        assert_eq!(take(&mut turns, false, true), Some(Lane::Bulk), "nobody else");
        assert_eq!(take(&mut turns, false, false), None, "nobody at all");
    }
}
