"""Personal data: keeps the images that users allow to be kept, and erases what is recorded about a user."""
