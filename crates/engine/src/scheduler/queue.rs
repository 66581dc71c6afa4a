use std::collections::HashMap;

use crate::job::Job;

/// Jobs that wait, and how much each group has had.
///
/// The next job is one of the highest priority; among those, of the group that has had the fewest rows computed; among
/// those, the one that came first.
#[derive(Default)]
pub(super) struct Queue {
    pub jobs: Vec<Job>,
    /// Rows computed for each group that has work.
    rows_served: HashMap<Option<String>, f64>,
}

impl Queue {
    /// Adds a job. A group that comes back after a pause has no claim to what it did not use meanwhile.
    pub fn push(&mut self, job: Job) {
        if !self.rows_served.contains_key(&job.group) {
            let least = self.rows_served.values().copied().fold(f64::INFINITY, f64::min);
            let start = if least.is_finite() { least } else { 0.0 };
            self.rows_served.insert(job.group.clone(), start);
        }
        self.jobs.push(job);
    }

    /// Position of the job to run next.
    pub fn next(&self) -> Option<usize> {
        let served = |job: &Job| self.rows_served.get(&job.group).copied().unwrap_or(0.0);
        let positions = 0..self.jobs.len();
        positions.min_by(|a, b| {
            let (a, b) = (&self.jobs[*a], &self.jobs[*b]);
            let by_priority = b.priority.cmp(&a.priority);
            by_priority
                .then_with(|| served(a).total_cmp(&served(b)))
                .then_with(|| a.id.cmp(&b.id))
        })
    }

    /// Counts rows computed for a group.
    pub fn charge(&mut self, group: &Option<String>, row_count: usize) {
        if let Some(served) = self.rows_served.get_mut(group) {
            *served += row_count as f64;
        }
    }

    /// Forgets groups without work.
    pub fn forget_idle(&mut self, running: &[Job]) {
        let jobs = &self.jobs;
        self.rows_served
            .retain(|group, _| jobs.iter().chain(running).any(|job| job.group == *group));
    }
}
