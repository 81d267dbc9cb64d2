"""The report that people read: one HTML file a build, and one that compares several. Both work offline and hold no script."""
