"""NSQ under other programs: task queues and tracing. Each needs an extra, such as `nsqkit[taskiq]`."""
