"""NSQ under other programs: task queues and tracing. Each module needs the extra of its name, `nsqkit[taskiq]`."""
