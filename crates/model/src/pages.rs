//! Which pages and slots are in use.

use crate::Error;

/// Tokens of a page. Every layer's pool keeps the entries of these tokens under the same page number; a multiple of
/// both compression ratios.
pub const PAGE_TOKEN_COUNT: usize = 256;

/// Reference counts of pages and the free slots of a pool.
#[derive(Debug)]
pub(crate) struct Ledger {
    page_users: Vec<u32>,
    free_pages: Vec<u32>,
    free_slots: Vec<u32>,
    slot_count: usize,
}

impl Ledger {
    pub fn new(page_count: usize, slot_count: usize) -> Self {
        Ledger {
            page_users: vec![0; page_count],
            // Taken from the end: low numbers first, so a lazily committed pool stays small.
            free_pages: (0..page_count as u32).rev().collect(),
            free_slots: (0..slot_count as u32).rev().collect(),
            slot_count,
        }
    }

    pub fn take_slot(&mut self) -> Result<u32, Error> {
        self.free_slots.pop().ok_or(Error::Sequences { limit: self.slot_count })
    }

    pub fn release_slot(&mut self, slot: u32) {
        self.free_slots.push(slot);
    }

    /// `count` unused pages, or none at all.
    pub fn take_pages(&mut self, count: usize) -> Result<Vec<u32>, Error> {
        let free = self.free_pages.len();
        if count > free {
            return Err(Error::Pages { wanted: count, free });
        }
        let pages = self.free_pages.split_off(free - count);
        for page in &pages {
            self.page_users[*page as usize] = 1;
        }
        Ok(pages.into_iter().rev().collect())
    }

    /// One more user for each page.
    pub fn share_pages(&mut self, pages: &[u32]) {
        pages.iter().for_each(|page| self.page_users[*page as usize] += 1);
    }

    pub fn is_shared(&self, page: u32) -> bool {
        self.page_users[page as usize] > 1
    }

    /// One user less for each page; those without users become free.
    pub fn release_pages(&mut self, pages: &[u32]) {
        for page in pages {
            let users = &mut self.page_users[*page as usize];
            *users -= 1;
            if *users == 0 {
                self.free_pages.push(*page);
            }
        }
    }

    pub fn page_count(&self) -> usize {
        self.page_users.len()
    }

    pub fn free_page_count(&self) -> usize {
        self.free_pages.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_return_when_their_last_user_leaves() {
        let mut ledger = Ledger::new(3, 1);
        let pages = ledger.take_pages(2).expect("two of three");
        assert_eq!(pages, [0, 1]);
        ledger.share_pages(&pages[..1]);
        assert!(ledger.is_shared(0) && !ledger.is_shared(1));
        ledger.release_pages(&pages);
        assert_eq!(ledger.free_page_count(), 2);
        assert!(matches!(ledger.take_pages(3), Err(Error::Pages { wanted: 3, free: 2 })));
        ledger.release_pages(&[0]);
        assert_eq!(ledger.free_page_count(), 3);
    }
}
