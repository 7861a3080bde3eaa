"""The Hugging Face Hub: client, credentials, downloads and publishing."""
