//! What the watching thread writes while a campaign runs: the report, the curve, what was reached.
//!
//! Does not write finds or programs of the corpus: the judges do, the moment there are any.

use crate::campaign::corpus::Folder;
use crate::campaign::shared::Shared;
use crate::campaign::{Note, Observer, progress, reached};
use crate::report::{Lines, Report, ReportError};

/// The files that grow, and the folder that is shared.
pub struct Journal {
    progress: Lines,
    reached: Lines,
    folder: Option<Folder>,
}

impl Journal {
    pub fn new(progress: Lines, reached: Lines, folder: Option<Folder>) -> Journal {
        Journal { progress, reached, folder }
    }

    /// Writes down where the campaign is. What was reached comes first: the other files count it.
    pub fn write(&mut self, shared: &Shared, report: &Report) -> Result<(), ReportError> {
        let news = shared.search().news();
        if !news.is_empty() {
            self.reached.append(&reached::lines(&news))?;
        }
        let snapshot = shared.snapshot();
        if snapshot.ready {
            self.progress.append(&progress::line(&snapshot))?;
        }
        shared.store.write(report)
    }

    /// Takes in what others have put into the folder of the corpus.
    pub fn look_at_corpus(&mut self, shared: &Shared, observer: &mut dyn Observer) {
        let complaint = self.folder.as_mut().and_then(|folder| shared.look_at_corpus(folder));
        if let Some(line) = complaint {
            observer.note(&Note::Corpus(line));
        }
    }
}
