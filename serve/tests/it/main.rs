//! The program `hydit-serve` as people and clients use it: the command line, and the server.

mod about;
mod answers;
mod arguments;
mod bench;
mod calibrate;
mod classes;
mod cli;
mod control;
mod engines;
mod hostile;
mod image_prompt;
mod init_image;
mod outputs;
mod pag;
mod plugin;
mod printing;
mod program;
mod quickstart;
mod server;
mod sheet;
