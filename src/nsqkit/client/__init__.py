"""The asyncio client: producer, consumer, and blocking ones for programs without an event loop."""
